// What is drawn follows the exact filtered distribution, with drafts and without: chi-square of the
// engine's own tokens. Seeds are fixed: a test passes always or never.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/engine_loop.h"
#include "tests/crowd/answers.h"
#include "tests/crowd/models.h"
#include "tests/support/rounds.h"

namespace lapidary {
namespace {

constexpr int kContext = 4096;
// The normal quantile of a significance of 1e-4, of each chi-square.
constexpr double kQuantile = 3.719;

// The same logits in every row; its drafter says what it likes.
class StillModel : public StepModel {
 public:
  StillModel(std::vector<float> logits, bool drafts) : still_(std::move(logits)), drafts_(drafts) {}
  int vocab_size() const override { return static_cast<int>(still_.size()); }
  int hidden() const override { return 1; }
  int window() const override { return kPageTokens; }
  bool has_drafter() const override { return drafts_; }
  RowSampler& row_sampler() override { return *row_sampler_; }
  SlotStates& slot_states() override { return *slot_states_; }
  StepOutput Forward(const Batch& batch) override {
    const int64_t count = batch.output_rows.rank == 0 ? 0 : batch.output_rows.rows();
    Fill(count);
    return {MakeTensor(states_.data(), DType::kF32, count, 1),
            MakeTensor(logits_.data(), DType::kF32, count, vocab_size())};
  }
  // Likely ids more often than others, so that some drafts are accepted and some are not.
  DraftOutput Draft(Tensor tokens, Tensor, const RowSet&) override {
    Fill(tokens.rows());
    for (int64_t i = 0; i < tokens.rows(); ++i) {
      const uint64_t id = num_drafted_++ % 7 == 0 ? num_drafted_ % still_.size() : num_drafted_ % 3;
      logits_[static_cast<size_t>(i) * still_.size() + id] = 100;
    }
    return {MakeTensor(logits_.data(), DType::kF32, tokens.rows(), vocab_size()),
            MakeTensor(states_.data(), DType::kF32, tokens.rows(), 1)};
  }

 private:
  void Fill(int64_t count) {
    logits_.clear();
    for (int64_t i = 0; i < count; ++i) logits_.insert(logits_.end(), still_.begin(), still_.end());
    states_.assign(static_cast<size_t>(count), 0.0f);
  }
  std::vector<float> still_, logits_, states_;
  bool drafts_;
  uint64_t num_drafted_ = 0;
  const std::unique_ptr<RowSampler> row_sampler_ = MakeCpuRowSampler(vocab_size());
  const std::unique_ptr<SlotStates> slot_states_ = MakeCpuSlotStates(8, 1);
};

struct Case {
  const char* name;
  float temperature = 1.0f;
  int top_k = 0;
  float top_p = 1.0f, min_p = 0.0f;
  bool ties = false;  // the logits come in runs of equal ones
};

const Case kCases[] = {
    {"plain"},
    {"cold", 0.5f},
    {"hot", 2.0f},
    {"top_k", 1.0f, 5},
    {"top_p", 1.0f, 0, 0.75f},
    {"min_p", 1.0f, 0, 1.0f, 0.11f},
    {"all", 1.3f, 12, 0.85f, 0.07f},
    {"top_k_in_a_tie", 1.0f, 6, 1.0f, 0.0f, true},
    {"top_p_in_a_tie", 1.0f, 0, 0.62f, 0.0f, true},
    {"min_p_of_one", 1.0f, 0, 1.0f, 1.0f, true},
};

// Not in the order of their size.
std::vector<float> LogitsOf(const Case& c) {
  std::vector<float> logits(24);
  for (size_t i = 0; i < logits.size(); ++i) {
    const size_t rank = i * 7 % logits.size();
    const size_t tied = rank / 4;
    logits[i] = c.ties ? -0.5f * static_cast<float>(tied) : -0.23f * static_cast<float>(rank);
  }
  return logits;
}

// The filters as docs/SERVING.md defines them, in double.
std::vector<double> Expected(const Case& c) {
  const std::vector<float> logits = LogitsOf(c);
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  if (c.top_k > 0) order.resize(static_cast<size_t>(c.top_k));
  const auto weight = [&](size_t id) {
    return std::exp((double{logits[id]} - double{logits[order[0]]}) / double{c.temperature});
  };
  double total = 0;
  for (const size_t id : order) total += weight(id);
  // The fewest that have a share of top_p.
  double reached = 0;
  size_t count = 0;
  while (count < order.size() && reached < double{c.top_p} * total * (1 - 1e-12))
    reached += weight(order[count++]);
  order.resize(count);
  std::erase_if(order, [&](size_t id) { return weight(id) < double{c.min_p}; });
  total = 0;
  for (const size_t id : order) total += weight(id);
  std::vector<double> probabilities(logits.size());
  for (const size_t id : order) probabilities[id] = weight(id) / total;
  return probabilities;
}

std::unique_ptr<EngineLoop> MakeStillEngine(const Case& c, int num_drafts) {
  LoopOptions options;
  options.vocab_size = 24;
  options.limits.max_running = 8;
  options.limits.max_length = kContext;
  options.limits.max_drafts = options.drafts.max_drafts = num_drafts;
  options.drafts.adaptive = false;
  options.layout =
      KvLayout::Make({{false, true, 1, 16}, {true, true, 1, 16}}, kPageTokens, DType::kF32);
  options.num_slabs = 2000;
  const RankOptions rank{8, Scheduler::TableCells(options.limits), {}};
  return std::make_unique<EngineLoop>(
      std::make_unique<Rank>(std::make_unique<StillModel>(LogitsOf(c), num_drafts > 0), rank),
      options);
}

std::vector<int32_t> Draws(const Case& c, int num_drafts, int num_draws) {
  const auto loop = MakeStillEngine(c, num_drafts);
  Answers answers;
  const int each = 4000;
  const auto num_requests = static_cast<uint64_t>((num_draws + each - 1) / each);
  for (uint64_t id = 0; id < num_requests; ++id) {
    Request request;
    request.id = id;
    request.prompt = {0};
    request.max_tokens = each;
    request.sampling.seed = id;
    request.sampling.temperature = c.temperature;
    request.sampling.top_k = c.top_k;
    request.sampling.top_p = c.top_p;
    request.sampling.min_p = c.min_p;
    request.sampling.ignore_eos = true;
    EXPECT_TRUE(loop->Submit(request, answers.Sink()).ok());
  }
  EXPECT_TRUE(answers.Wait(num_requests));
  if (num_drafts > 0) {
    EXPECT_GT(loop->stats().accepted_tokens, num_draws / 20);
    EXPECT_LT(loop->stats().accepted_tokens, loop->stats().drafted_tokens);
  }
  std::vector<int32_t> draws;
  for (uint64_t id = 0; id < num_requests; ++id) {
    const std::vector<int32_t> tokens = answers.At(id).tokens;
    draws.insert(draws.end(), tokens.begin(), tokens.end());
  }
  return draws;
}

class DrawsTest : public testing::TestWithParam<Case> {};

TEST_P(DrawsTest, FollowTheFilteredDistribution) {
  const int num_draws = Rounds(100'000);
  const std::vector<double> expected = Expected(GetParam());
  const std::vector<int32_t> plain = Draws(GetParam(), 0, num_draws);
  std::vector<int64_t> counts(expected.size());
  for (const int32_t id : plain) ++counts[static_cast<size_t>(id)];
  double chi_square = 0;
  int degrees = -1;
  for (size_t id = 0; id < expected.size(); ++id) {
    if (expected[id] == 0) {
      EXPECT_EQ(counts[id], 0) << "id " << id << " was filtered out";
      continue;
    }
    const double wanted = expected[id] * static_cast<double>(plain.size());
    chi_square += std::pow(static_cast<double>(counts[id]) - wanted, 2) / wanted;
    ++degrees;
  }
  ASSERT_GE(degrees, 1);
  // Wilson and Hilferty's quantile.
  const double spread = 2.0 / (9.0 * degrees);
  const double limit = degrees * std::pow(1 - spread + kQuantile * std::sqrt(spread), 3);
  EXPECT_LT(chi_square, limit) << degrees << " degrees of freedom";
  EXPECT_EQ(plain, Draws(GetParam(), 4, num_draws)) << "drafts changed what is drawn";
  PrintGoal("G8", static_cast<int64_t>(plain.size()), num_draws, !HasFailure());
}

INSTANTIATE_TEST_SUITE_P(Filters, DrawsTest, testing::ValuesIn(kCases),
                         [](const auto& c) { return std::string(c.param.name); });

}  // namespace
}  // namespace lapidary
