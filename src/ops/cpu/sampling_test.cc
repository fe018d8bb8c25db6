#include "ops/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace lapidary {
namespace {

// ln of these: probabilities one can read.
const std::vector<double> kProbs = {0.4, 0.25, 0.15, 0.1, 0.06, 0.04};

std::vector<float> Logits() {
  std::vector<float> logits;
  for (const double p : kProbs) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

// Chi-square of 20,000 draws against the probabilities; a kept token of probability 0 fails.
void ExpectDraws(SamplingRow row, const std::vector<double>& probs) {
  Sampler sampler(static_cast<int>(probs.size()));
  const std::vector<float> logits = Logits();
  const int draws = 20000;
  std::vector<int> counts(probs.size());
  for (int i = 0; i < draws; ++i) {
    row.position = static_cast<uint64_t>(i);
    ++counts[static_cast<size_t>(*sampler.Sample(logits, row))];
  }
  double chi = 0;
  for (size_t i = 0; i < probs.size(); ++i) {
    const double expected = probs[i] * draws;
    if (expected == 0) {
      EXPECT_EQ(counts[i], 0) << i;
    } else {
      chi += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
  }
  EXPECT_LT(chi, 20.5);  // 5 degrees of freedom, p = 0.001
}

TEST(Sampling, DrawsFollowTheFilteredDistribution) {
  SamplingRow row;
  row.seed = 7;
  ExpectDraws(row, kProbs);
  row.top_k = 3;
  ExpectDraws(row, {0.5, 0.3125, 0.1875, 0, 0, 0});
  row = {};
  row.top_p = 0.7f;  // 0.4 + 0.25 < 0.7 <= 0.8
  ExpectDraws(row, {0.5, 0.3125, 0.1875, 0, 0, 0});
  row = {};
  row.min_p = 0.3f;  // >= 0.12
  ExpectDraws(row, {0.5, 0.3125, 0.1875, 0, 0, 0});
  row = {};
  row.top_k = 4;     // 4/9, 5/18, 1/6, 1/9
  row.top_p = 0.7f;  // 0.444 + 0.278 >= 0.7: of the distribution that top-k left
  ExpectDraws(row, {0.4 / 0.65, 0.25 / 0.65, 0, 0, 0, 0});
  row = {};
  row.temperature = 0.5f;
  double sum = 0;
  for (const double p : kProbs) sum += p * p;
  std::vector<double> squared;
  for (const double p : kProbs) squared.push_back(p * p / sum);
  ExpectDraws(row, squared);
}

TEST(Sampling, RandomNumbersAreTheirKeys) {
  EXPECT_EQ(UniformAt(1, 2, 3), UniformAt(1, 2, 3));
  EXPECT_NE(UniformAt(1, 2, 3), UniformAt(2, 2, 3));
  EXPECT_NE(UniformAt(1, 2, 3), UniformAt(1, 3, 3));
  EXPECT_NE(UniformAt(1, 2, 3), UniformAt(1, 2, 4));
  double sum = 0;
  for (uint64_t i = 0; i < 10000; ++i) sum += UniformAt(5, 0, i);
  EXPECT_NEAR(sum / 10000, 0.5, 0.01);
}

TEST(Sampling, GreedyTiesGoToTheLowerId) {
  Sampler sampler(4);
  SamplingRow row;
  row.temperature = 0;
  const std::vector<float> logits = {1, 3, 3, 0};
  EXPECT_EQ(sampler.Sample(logits, row), 1);
  row.temperature = 1;
  row.top_k = 1;
  EXPECT_EQ(sampler.Sample(logits, row), 1);
}

TEST(Sampling, FiltersApplyInTheirOrder) {
  Sampler sampler(4);
  SamplingRow row;
  row.temperature = 0;
  const std::vector<float> logits = {4, 3, 2, -1};
  const std::vector<int32_t> zero = {0}, one = {1}, history = {0, 1, 1};
  const std::vector<std::pair<int32_t, float>> bias = {{0, 100.0f}, {3, 3.5f}};
  row.suppress = zero;
  EXPECT_EQ(sampler.Sample(logits, row), 1);
  row.bias = bias;  // does not bring a suppressed id back
  EXPECT_EQ(sampler.Sample(logits, row), 1);
  row.history = history;
  row.repetition_penalty = 2;  // 1: 3 -> 1.5; 3: 2.5
  EXPECT_EQ(sampler.Sample(logits, row), 3);
  row.bias = {};
  EXPECT_EQ(sampler.Sample(logits, row), 2);
  row = {};
  row.temperature = 0;
  row.history = history;
  row.num_prompt = 1;
  row.frequency_penalty = -0.6f;  // 1: 3 + 2 * 0.6
  EXPECT_EQ(sampler.Sample(logits, row), 1);
  row.frequency_penalty = 0;
  row.presence_penalty = -0.9f;  // once only
  EXPECT_EQ(sampler.Sample(logits, row), 0);
  const std::vector<std::vector<int32_t>> bad = {{1, 0}};
  row.presence_penalty = 0;
  row.bad_words = bad;
  EXPECT_EQ(sampler.Sample(logits, row), 1);
  row.num_prompt = 3;  // the prompt does not complete a bad word
  EXPECT_EQ(sampler.Sample(logits, row), 0);
  row.allowed = one;
  EXPECT_EQ(sampler.Sample(logits, row), 1);
  row.held_off = one;
  EXPECT_EQ(sampler.Sample(logits, row), std::nullopt);
}

TEST(Sampling, LogprobsAreOfTheRawDistribution) {
  const std::vector<float> logits = Logits();
  const RowLogprobs logprobs(logits);
  const auto top = logprobs.Top(3);
  ASSERT_EQ(top.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(top[static_cast<size_t>(i)].first, i);
    EXPECT_NEAR(top[static_cast<size_t>(i)].second, std::log(kProbs[static_cast<size_t>(i)]), 1e-6);
  }
  EXPECT_NEAR(logprobs.of(5), std::log(0.04), 1e-6);
  EXPECT_FALSE(AllFinite(std::vector<float>{1, NAN}));
  EXPECT_FALSE(AllFinite(std::vector<float>{1, INFINITY}));
}

}  // namespace
}  // namespace lapidary
