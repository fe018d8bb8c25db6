#include "app/bench/routing.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lapidary {
namespace {

MoeConfig Of26B() {
  MoeConfig moe;
  moe.num_experts = 128;
  moe.top_k = 8;
  return moe;
}

TEST(Routing, IsTheMeanOfAllCalls) {
  ExpertTally tally;
  EXPECT_FALSE(RoutingOf(tally, Of26B()));
  tally.of_rows[1] = {3, 24};  // a row chooses 8 of 128
  tally.of_rows[80] = {1, 126};
  const Routing routing = RoutingOf(tally, Of26B()).value_or(Routing{});
  EXPECT_DOUBLE_EQ(routing.experts, 150.0 / 4);
  // 80 independent rows leave an expert out with probability (15/16)^80.
  EXPECT_NEAR(routing.independent_experts, (3 * 8 + 128 * (1 - std::pow(15.0 / 16, 80))) / 4, 1e-9);
}

// A run's record of these figures.
json::object Judged(double experts, double distinct) {
  std::vector<Figure> figures = {{"sampled_tokens", "", 800},
                                 {"distinct_sampled_tokens", "", distinct}};
  AddFigures(Routing{experts, 127}, figures);
  json::object record;
  JudgeRouting(SpreadsOf({figures}), record);
  return record;
}

TEST(Routing, AlikeRowsAreNotValid) {
  EXPECT_EQ(Judged(0.971 * 127, 700).at("valid"), true);
  EXPECT_EQ(Judged(0.969 * 127, 700).at("valid"), false);
  EXPECT_EQ(Judged(127, 699).at("valid"), false);
  // A model without experts is not judged.
  json::object record;
  JudgeRouting({}, record);
  EXPECT_FALSE(record.contains("valid"));
}

}  // namespace
}  // namespace lapidary
