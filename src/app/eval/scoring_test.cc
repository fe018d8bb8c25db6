#include "app/eval/scoring.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lapidary {
namespace {

Answer Content(std::string text) { return {std::move(text), std::nullopt}; }
Answer Call(std::string name, std::string arguments, std::string content = "") {
  return {std::move(content), FirstCall{std::move(name), std::move(arguments)}};
}

TEST(Scoring, ExactIgnoresOnlyOuterSpace) {
  const Expectation expected{Match::kExact, " 42\n", {}};
  EXPECT_TRUE(IsRight(expected, Content("42")));
  EXPECT_TRUE(IsRight(expected, Content("\t42 \r\n")));
  EXPECT_FALSE(IsRight(expected, Content("4 2")));
  EXPECT_FALSE(IsRight(expected, Content("42.")));
  EXPECT_FALSE(IsRight(expected, Content("")));
  EXPECT_TRUE(IsRight({Match::kExact, "", {}}, Content(" \n")));
}

TEST(Scoring, ContainsMindsCaseAndSpace) {
  const Expectation expected{Match::kContains, "New York", {}};
  EXPECT_TRUE(IsRight(expected, Content("It is New York.")));
  EXPECT_FALSE(IsRight(expected, Content("It is new york.")));
  EXPECT_FALSE(IsRight(expected, Content("New  York")));
}

TEST(Scoring, JsonMindsValuesNotOrderOrSpace) {
  const Expectation expected{Match::kJson, "", json::parse(R"({"a":1,"b":[1,2],"c":null})")};
  EXPECT_TRUE(IsRight(expected, Content(R"( {"c": null, "b": [1, 2], "a": 1} )")));
  EXPECT_FALSE(IsRight(expected, Content(R"({"c":null,"b":[2,1],"a":1})")));
  EXPECT_FALSE(IsRight(expected, Content(R"({"b":[1,2],"a":1})")));
  EXPECT_FALSE(IsRight(expected, Content(R"({"a":"1","b":[1,2],"c":null})")));
  EXPECT_FALSE(IsRight(expected, Content(R"(Here: {"a":1,"b":[1,2],"c":null})")));
  EXPECT_FALSE(IsRight(expected, Content("{")));
}

TEST(Scoring, ToolCallMindsNameAndArguments) {
  const Expectation expected{Match::kToolCall, "",
                             json::parse(R"({"name":"add","arguments":{"x":1,"y":"two"}})")};
  EXPECT_TRUE(IsRight(expected, Call("add", R"({"y":"two","x":1})")));
  EXPECT_TRUE(IsRight(expected, Call("add", R"({"y":"two","x":1})", "words beside it")));
  EXPECT_FALSE(IsRight(expected, Call("sub", R"({"y":"two","x":1})")));
  EXPECT_FALSE(IsRight(expected, Call("add", R"({"y":"two","x":2})")));
  EXPECT_FALSE(IsRight(expected, Call("add", R"({"y":"two")")));
  EXPECT_FALSE(IsRight(expected, Content(R"({"name":"add","arguments":{"x":1,"y":"two"}})")));
}

// The ends are the shares p that lie z standard errors of p itself away from the share seen.
TEST(Scoring, WilsonEndsSolveTheirEquation) {
  constexpr double kZ = 1.959963984540054;
  for (const Score score : {Score{1, 3}, Score{9, 10}, Score{50, 100}, Score{993, 1000}}) {
    const auto [low, high] = Wilson(score);
    const double seen = static_cast<double>(score.right) / score.total;
    EXPECT_LT(low, seen);
    EXPECT_GT(high, seen);
    for (const double p : {low, high})
      EXPECT_NEAR(std::abs(seen - p), kZ * std::sqrt(p * (1 - p) / score.total), 1e-12);
  }
  EXPECT_NEAR(Wilson({9, 10}).first, 0.5958, 5e-5);  // tabulated in textbooks
  EXPECT_NEAR(Wilson({9, 10}).second, 0.9821, 5e-5);
  EXPECT_NEAR(Wilson({0, 10}).first, 0, 1e-12);
  EXPECT_NEAR(Wilson({10, 10}).second, 1, 1e-12);
  EXPECT_EQ(Wilson({0, 0}), (std::pair<double, double>{0, 1}));
}

}  // namespace
}  // namespace lapidary
