// A call for all rows of a step answers each as Sampler and RowLogprobs do alone.
#include "ops/row_sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace lapidary {
namespace {

constexpr int kVocab = 50;

class RowSamplerTest : public testing::Test {
 protected:
  RowSamplerTest() : logits_(4 * kVocab) {
    std::mt19937 rng(3);
    std::normal_distribution<float> normal(0, 2);
    for (float& x : logits_) x = normal(rng);
  }
  std::span<const float> Row(int64_t row) const {
    return std::span(logits_).subspan(static_cast<size_t>(row) * kVocab, kVocab);
  }
  RowQuery Draw(int64_t row, std::span<const int32_t> history) const {
    RowQuery query;
    query.row = row;
    query.draws = true;
    query.sampling.seed = 11;
    query.sampling.history = history;
    query.sampling.num_prompt = 1;
    query.sampling.position = history.size();
    query.sampling.frequency_penalty = 0.5f;
    return query;
  }
  std::span<RowAnswer> Sample(std::span<const RowQuery> queries) {
    return sampler_->Sample(MakeTensor(logits_.data(), DType::kF32, 4, kVocab), queries);
  }

  std::vector<float> logits_;
  const std::unique_ptr<RowSampler> sampler_ = MakeCpuRowSampler(kVocab);
};

TEST_F(RowSamplerTest, DrawsEachRowAsIfAlone) {
  const std::vector<int32_t> history = {3, 7, 7};
  const std::vector<RowQuery> queries = {Draw(2, history), Draw(0, history), Draw(2, history)};
  const std::span<RowAnswer> answers = Sample(queries);
  Sampler alone(kVocab);
  for (size_t i = 0; i < queries.size(); ++i) {
    EXPECT_TRUE(answers[i].finite);
    EXPECT_EQ(answers[i].token, alone.Sample(Row(queries[i].row), queries[i].sampling));
    EXPECT_FALSE(answers[i].logprobs);
  }
}

// What a verify row gives is used only if its draft was drawn, and then it is what decoding gives.
TEST_F(RowSamplerTest, ARowBehindADraftThatWasDrawnIsDecodings) {
  Sampler alone(kVocab);
  std::vector<int32_t> history = {3, 7};
  const std::optional<int32_t> first = alone.Sample(Row(0), Draw(0, history).sampling);
  const std::vector<int32_t> right = {3, 7, *first}, wrong = {3, 7, (*first + 1) % kVocab};
  for (const auto* assumed : {&right, &wrong}) {
    std::vector<RowQuery> queries = {Draw(0, history), Draw(1, *assumed)};
    queries[1].continues = true;
    const std::span<RowAnswer> answers = Sample(queries);
    EXPECT_EQ(answers[0].token, first);
    if (assumed == &right) {
      EXPECT_EQ(answers[1].token, alone.Sample(Row(1), queries[1].sampling));
    }
  }
}

TEST_F(RowSamplerTest, ScoresWithoutDrawing) {
  const std::vector<int32_t> asked = {9, 4};
  RowQuery query;
  query.row = 1;
  query.wants_logprobs = true;
  query.token = 5;
  query.num_top = 3;
  query.asked = asked;
  const RowAnswer answer = Sample({&query, 1}).front();
  const RowLogprobs expected(Row(1));
  EXPECT_FALSE(answer.token);
  ASSERT_TRUE(answer.logprobs);
  EXPECT_EQ(answer.logprobs->token, 5);
  EXPECT_EQ(answer.logprobs->logprob, expected.of(5));
  EXPECT_EQ(answer.logprobs->top, expected.Top(3));
  EXPECT_EQ(answer.logprobs->asked,
            (std::vector<std::pair<int32_t, float>>{{9, expected.of(9)}, {4, expected.of(4)}}));
}

TEST_F(RowSamplerTest, ARowThatIsNotFiniteSaysSoAndSpoilsNoOther) {
  logits_[1 * kVocab + 8] = std::nanf("");
  logits_[3 * kVocab + 49] = -INFINITY;
  const std::vector<int32_t> history = {3};
  std::vector<RowQuery> queries = {Draw(0, history), Draw(1, history), Draw(2, history),
                                   Draw(3, history)};
  queries[1].wants_logprobs = true;
  const std::span<RowAnswer> answers = Sample(queries);
  for (const size_t i : {size_t{0}, size_t{2}}) EXPECT_TRUE(answers[i].finite && answers[i].token);
  for (const size_t i : {size_t{1}, size_t{3}})
    EXPECT_TRUE(!answers[i].finite && !answers[i].token && !answers[i].logprobs);
}

TEST_F(RowSamplerTest, MasksThatLeaveNothingGiveNoToken) {
  const std::vector<int32_t> history = {3}, allowed = {6}, held_off = {6};
  RowQuery query = Draw(0, history);
  query.sampling.allowed = allowed;
  query.sampling.held_off = held_off;
  query.wants_logprobs = true;
  const RowAnswer answer = Sample({&query, 1}).front();
  EXPECT_TRUE(answer.finite);
  EXPECT_FALSE(answer.token);
  EXPECT_FALSE(answer.logprobs);
}

}  // namespace
}  // namespace lapidary
