#include "app/bench/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace lapidary {
namespace {

TEST(Metrics, DescribeInterpolatesBetweenValues) {
  // Of 1, 2, 4, 9: mean 4, squares 9 + 4 + 0 + 25 = 38; the median lies between 2 and 4; p90 at
  // rank 2.7 is 4 + 0.7 x 5, p99 at 2.97 is 4 + 0.97 x 5.
  const Distribution values = Describe({9, 1, 4, 2});
  EXPECT_EQ(values.count, 4u);
  EXPECT_DOUBLE_EQ(values.mean, 4);
  EXPECT_DOUBLE_EQ(values.std, 3.0822070014844885);  // sqrt(38 / 4)
  EXPECT_EQ(values.min, 1);
  EXPECT_DOUBLE_EQ(values.median, 3);
  EXPECT_DOUBLE_EQ(values.p90, 7.5);
  EXPECT_DOUBLE_EQ(values.p99, 8.85);
  EXPECT_EQ(values.max, 9);
  EXPECT_EQ(Describe({}).count, 0u);
  EXPECT_EQ(Describe({5}).p99, 5);
}

// Two requests that succeed, one of a single token, one that fails.
std::vector<RequestTrace> Traces() {
  std::vector<RequestTrace> traces(4);
  // TTFT 0.5, E2EL 1.1; gaps 0.2, 0.4; 6 tokens: TPOT 0.6 / 5 = 0.12.
  traces[0] = {100, 6, 1.0, {1.5, 1.7, 2.1}, ""};
  // TTFT 1, E2EL 2; gap 1; 2 tokens: TPOT 1.
  traces[1] = {10, 2, 2.0, {3.0, 4.0}, ""};
  // TTFT = E2EL = 0.25, no gap, no TPOT.
  traces[2] = {1, 1, 0.5, {0.75}, ""};
  traces[3] = {1000, 7, 0.5, {9}, "broken off"};
  return traces;
}

// One decodes from 0 to 2 s, one from 1 to 3, after a pause one from 5 to 6: five seconds of
// decoding in four.
TEST(Metrics, MeanDecodingLeavesPausesOut) {
  std::vector<RequestTrace> traces(5);
  traces[0] = {1, 3, 0, {0, 1.5, 2}, ""};
  traces[1] = {1, 2, 0, {1, 3}, ""};
  traces[2] = {1, 2, 0, {5, 6}, ""};
  traces[3] = {1, 1, 0, {4}, ""};
  traces[4] = {1, 2, 0, {0, 6}, "broken off"};
  EXPECT_DOUBLE_EQ(MeanDecoding(traces), 1.25);
  EXPECT_EQ(MeanDecoding({traces[3]}), 1);
  EXPECT_EQ(MostDecoding(traces), 2);
  EXPECT_EQ(MostDecoding({traces[3]}), 1);
  EXPECT_EQ(MostDecoding({traces[4]}), 0);
}

TEST(Metrics, TheClientsDefinitions) {
  const LoadMetrics metrics = Measure(Traces(), 4.0);
  EXPECT_EQ(metrics.completed, 3);
  EXPECT_EQ(metrics.failed, 1);
  EXPECT_EQ(metrics.input_tokens, 111);
  EXPECT_EQ(metrics.output_tokens, 9);
  EXPECT_NEAR(metrics.ttft_ms.mean, 1750.0 / 3, 1e-9);
  EXPECT_NEAR(metrics.ttft_ms.median, 500, 1e-9);
  EXPECT_NEAR(metrics.tpot_ms.mean, 560, 1e-9);
  EXPECT_EQ(metrics.tpot_ms.count, 2u);
  EXPECT_EQ(metrics.itl_ms.count, 3u);
  EXPECT_NEAR(metrics.itl_ms.median, 400, 1e-9);
  EXPECT_NEAR(metrics.e2el_ms.max, 2000, 1e-9);
  EXPECT_NEAR(metrics.decode_tok_per_s, 6 / 1.6, 1e-9);  // 5 + 1 tokens in 0.6 + 1 seconds
}

double ValueOf(const std::vector<Figure>& figures, const std::string& key) {
  for (const Figure& figure : figures)
    if (figure.key == key) return figure.value;
  ADD_FAILURE() << "no " << key;
  return 0;
}
bool Has(const std::vector<Figure>& figures, const std::string& key) {
  return std::any_of(figures.begin(), figures.end(), [&](const Figure& f) { return f.key == key; });
}

TEST(Metrics, FiguresHaveTheClientsNames) {
  const std::vector<Figure> figures = FiguresOf(Measure(Traces(), 4.0));
  EXPECT_EQ(ValueOf(figures, "output_throughput"), 9 / 4.0);
  EXPECT_EQ(ValueOf(figures, "total_token_throughput"), 120 / 4.0);
  EXPECT_EQ(ValueOf(figures, "request_throughput"), 3 / 4.0);
  EXPECT_NEAR(ValueOf(figures, "median_itl_ms"), 400, 1e-9);
  EXPECT_FALSE(Has(figures, "p99_ttft_ms"));
  EXPECT_NEAR(ValueOf(figures, "min_ttft_ms"), 250, 1e-9);
  EXPECT_NEAR(ValueOf(figures, "max_ttft_ms"), 1000, 1e-9);
}

TEST(Metrics, P99NeedsAHundredValues) {
  for (const int count : {99, 100}) {
    std::vector<RequestTrace> traces;
    for (int i = 1; i <= count; ++i) traces.push_back({1, 1, 0, {i * 1e-3}, ""});
    const std::vector<Figure> figures = FiguresOf(Measure(traces, 1.0));
    EXPECT_EQ(Has(figures, "p99_ttft_ms"), count == 100);
    EXPECT_EQ(Has(figures, "max_ttft_ms"), count == 99);
    // Rank 98.01 of 1 .. 100.
    if (count < 100) continue;
    EXPECT_NEAR(ValueOf(figures, "p99_ttft_ms"), 99.01, 1e-9);
  }
}

TEST(Metrics, SpreadsAreOverRuns) {
  const std::vector<Spread> spreads =
      SpreadsOf({{{"a", "A", 3}, {"b", "B", 1}}, {{"a", "A", 1}}, {{"a", "A", 2}, {"b", "B", 4}}});
  ASSERT_EQ(spreads.size(), 2u);
  EXPECT_EQ(spreads[0].key, "a");
  EXPECT_EQ(spreads[0].median, 2);
  EXPECT_EQ(spreads[0].min, 1);
  EXPECT_EQ(spreads[0].max, 3);
  EXPECT_THAT(spreads[0].runs, testing::ElementsAre(3, 1, 2));
  EXPECT_EQ(spreads[1].median, 2.5);
}

}  // namespace
}  // namespace lapidary
