#include "ops/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <type_traits>

#include "tests/support/rounds.h"

namespace lapidary {
namespace {

// ln of these: probabilities one can read.
const std::vector<double> kProbs = {0.4, 0.25, 0.15, 0.1, 0.06, 0.04};

std::vector<float> Logits() {
  std::vector<float> logits;
  logits.reserve(kProbs.size());
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
  squared.reserve(kProbs.size());
  for (const double p : kProbs) squared.push_back(p * p / sum);
  ExpectDraws(row, squared);
}

// The definition, word for word: a full sort, one sum after the other.
std::optional<int32_t> SlowSample(std::vector<float> logits, const SamplingRow& row) {
  const float masked = -std::numeric_limits<float>::infinity();
  const auto at = [&](int32_t id) -> float& { return logits.at(static_cast<size_t>(id)); };
  for (const int32_t id : row.suppress) at(id) = masked;
  for (const auto& [id, bias] : row.bias) at(id) += bias;
  for (const int32_t id : std::set<int32_t>(row.history.begin(), row.history.end()))
    at(id) = at(id) > 0 ? at(id) / row.repetition_penalty : at(id) * row.repetition_penalty;
  std::map<int32_t, int> counts;
  for (const int32_t id : row.history.subspan(row.num_prompt)) ++counts[id];
  for (const auto& [id, count] : counts)
    at(id) -= row.presence_penalty + row.frequency_penalty * static_cast<float>(count);
  if (!row.allowed.empty())
    for (size_t i = 0; i < logits.size(); ++i)
      if (std::find(row.allowed.begin(), row.allowed.end(), static_cast<int32_t>(i)) ==
          row.allowed.end())
        logits[i] = masked;
  for (const int32_t id : row.held_off) at(id) = masked;

  struct Candidate {
    float scaled;
    int32_t id;
    double weight;
  };
  const float temperature = row.temperature < 1e-5f ? 1.0f : row.temperature;
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < logits.size(); ++i)
    if (logits[i] != masked)
      candidates.push_back({logits[i] / temperature, static_cast<int32_t>(i), 0});
  if (candidates.empty()) return std::nullopt;
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.scaled != b.scaled ? a.scaled > b.scaled : a.id < b.id;
  });
  if (row.temperature < 1e-5f) return candidates.front().id;
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < candidates.size())
    candidates.resize(static_cast<size_t>(row.top_k));
  double sum = 0;
  for (Candidate& c : candidates)
    sum += c.weight = std::exp(double{c.scaled} - double{candidates.front().scaled});
  if (row.top_p < 1.0f) {
    const double wanted = sum * double{row.top_p};
    size_t count = 0;
    for (sum = 0; count < candidates.size() && sum < wanted; ++count)
      sum += candidates[count].weight;
    candidates.resize(std::max<size_t>(count, 1));
  }
  while (candidates.size() > 1 && candidates.back().weight < double{row.min_p})
    candidates.pop_back();
  if (row.top_k <= 0 && row.top_p >= 1.0f && row.min_p <= 0.0f)
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  sum = 0;
  for (const Candidate& c : candidates) sum += c.weight;
  const double target = UniformAt(row.seed, row.choice, row.position) * sum;
  double reached = 0;
  for (const Candidate& c : candidates) {
    reached += c.weight;
    if (reached > target) return c.id;
  }
  return candidates.front().id;
}

// Rows of many shapes: spread like a model's, flat, with ties, with few values, nearly equal.
std::vector<float> RandomLogits(std::mt19937& random, size_t size) {
  std::normal_distribution<float> normal;
  const auto shape = random() % 5;
  const float spread = shape == 0 ? 4.0f : shape == 1 ? 0.001f : shape == 2 ? 20.0f : 1.5f;
  std::vector<float> logits(size);
  for (float& x : logits) {
    x = spread * normal(random);
    if (shape == 3) x = std::round(x);
    if (shape == 4) x = 12.0f + x * 1e-6f;
  }
  return logits;
}

TEST(Sampling, EqualsTheDefinition) {
  std::mt19937 random(3);
  const auto one_of = [&](auto... values) {
    const std::common_type_t<decltype(values)...> all[] = {values...};
    return all[random() % sizeof...(values)];
  };
  for (const size_t size : {1u, 2u, 63u, 64u, 65u, 1000u, 9001u}) {
    Sampler sampler(static_cast<int>(size));
    const auto ids = [&](size_t count) {
      std::vector<int32_t> some(count);
      for (int32_t& id : some) id = static_cast<int32_t>(random() % size);
      return some;
    };
    for (int round = 0; round < Rounds(size > 5000 ? 150 : 400); ++round) {
      const std::vector<float> logits = RandomLogits(random, size);
      const std::vector<int32_t> suppress = ids(random() % 3), history = ids(random() % 20),
                                 held_off = ids(random() % 2),
                                 allowed = ids(one_of(0, 0, 0, 1, 50));
      std::vector<std::pair<int32_t, float>> bias;
      for (const int32_t id : ids(random() % 3)) bias.emplace_back(id, one_of(-100.0f, 3.0f));
      SamplingRow row;
      row.temperature = one_of(0.0f, 2e-5f, 0.3f, 0.7f, 1.0f, 1.0f, 1.7f, 100.0f);
      row.top_k = one_of(0, 0, 1, 2, 64, 100, 141, 3000, 1 << 20);
      row.top_p = one_of(1.0f, 1.0f, 0.999999f, 0.95f, 0.5f, 1e-6f);
      row.min_p = one_of(0.0f, 0.0f, 0.05f, 0.9f, 1.0f);
      row.repetition_penalty = one_of(1.0f, 1.3f);
      row.presence_penalty = one_of(0.0f, 0.5f);
      row.frequency_penalty = one_of(0.0f, 0.25f);
      row.seed = random();
      row.position = history.size();
      row.history = history;
      row.num_prompt = history.size() / 2;
      row.suppress = suppress;
      row.bias = bias;
      row.allowed = allowed;
      row.held_off = held_off;
      ASSERT_EQ(sampler.Sample(logits, row), SlowSample(logits, row))
          << "V " << size << " round " << round << " t " << row.temperature << " k " << row.top_k
          << " p " << row.top_p << " min " << row.min_p;
    }
  }
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
  for (size_t i = 0; i < 19; ++i) {
    std::vector<float> row(19, -3e38f);
    EXPECT_TRUE(AllFinite(row));
    row[i] = i % 2 == 0 ? -INFINITY : -NAN;
    EXPECT_FALSE(AllFinite(row)) << i;
  }
}

}  // namespace
}  // namespace lapidary
