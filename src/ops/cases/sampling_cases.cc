// Drawing and scoring rows: every filter alone and all together, on rows that are flat, peaked,
// full of equal logits or sorted, and on rows that are not finite. Tokens, ids and flags must be
// the definition's.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/cases/op_case.h"

namespace lapidary {
namespace {

enum class Logits { kFlat, kPeaked, kTies, kEqual, kSorted, kNotFinite };
enum class Draws { kGreedy, kTopK, kTopP, kPlain, kMinP, kWideTopK, kMixed, kScored, kLong };
constexpr const char* kLogitsNames[] = {"flat", "peaked", "ties", "equal", "sorted", "not_finite"};
constexpr const char* kDrawsNames[] = {"greedy",     "top_k", "top_p",  "plain", "min_p",
                                       "wide_top_k", "mixed", "scored", "long"};
constexpr int kNumTop = 20, kNumAsked = 3;

class SamplingCase : public OpCase {
 public:
  SamplingCase(int64_t rows, int64_t vocab, Logits logits, Draws draws)
      : rows_(rows), vocab_(vocab), logits_kind_(logits), draws_(draws) {}

  std::string Name() const override {
    return fmt::format("sampling/{}/{}/T{}xV{}", kDrawsNames[static_cast<int>(draws_)],
                       kLogitsNames[static_cast<int>(logits_kind_)], rows_, vocab_);
  }

  void Make(TensorSet& set) override {
    queries_.clear();
    std::vector<float> values(Index(rows_ * vocab_));
    for (int64_t t = 0; t < rows_; ++t)
      FillRow(std::span(values).subspan(Index(t * vocab_), Index(vocab_)), t, set.rng());
    logits_ = set.Add(DType::kF32, rows_, vocab_, values.data());
    for (int64_t t = 0; t < rows_; ++t) queries_.push_back(Query(t, set.rng()));
    tokens_ = set.Output(DType::kI32, rows_, 2);
    ids_ = set.Output(DType::kI32, rows_, kNumTop);
    logprobs_ = set.Output(DType::kF32, rows_, 1 + kNumTop + kNumAsked);
  }

  void Run(Ops& ops, const TensorSet& set) override {
    const auto sampler =
        ops.MakeRowSampler(static_cast<int>(vocab_), static_cast<int>(rows_), nullptr);
    const std::span<RowAnswer> answers = sampler->Sample(set[logits_], queries_);
    std::vector<int32_t> tokens, ids(Index(rows_ * kNumTop), -1);
    std::vector<float> logprobs(Index(rows_ * (1 + kNumTop + kNumAsked)), 0.0f);
    for (size_t t = 0; t < answers.size(); ++t) {
      const RowAnswer& answer = answers[t];
      tokens.push_back(answer.token.value_or(answer.logprobs ? answer.logprobs->token : -1));
      tokens.push_back(answer.finite);
      if (!answer.logprobs) continue;
      float* row = logprobs.data() + t * (1 + kNumTop + kNumAsked);
      row[0] = answer.logprobs->logprob;
      for (size_t i = 0; i < answer.logprobs->top.size(); ++i) {
        ids[t * kNumTop + i] = answer.logprobs->top[i].first;
        row[1 + i] = answer.logprobs->top[i].second;
      }
      for (size_t i = 0; i < answer.logprobs->asked.size(); ++i)
        row[1 + kNumTop + i] = answer.logprobs->asked[i].second;
    }
    const auto store = [&](int tensor, const void* from) {
      Tensor to = set[tensor];
      set.device().CopyIn(to.data, from, to.num_elements() * 4);
    };
    store(tokens_, tokens.data());
    store(ids_, ids.data());
    store(logprobs_, logprobs.data());
  }

  std::vector<CaseOutput> Outputs() const override { return {{tokens_}, {ids_}, {logprobs_}}; }
  // Log probabilities to the last bits of an f32.
  Tolerance tolerance() const override { return {1e-4, 1e-4}; }
  int64_t Bytes() const override { return rows_ * vocab_ * 4; }

 private:
  void FillRow(std::span<float> row, int64_t t, std::mt19937_64& rng) const {
    std::normal_distribution<float> normal(0, 3);
    for (size_t i = 0; i < row.size(); ++i) {
      row[i] = normal(rng);
      if (logits_kind_ == Logits::kTies) row[i] = std::round(row[i]);
      if (logits_kind_ == Logits::kEqual) row[i] = -1.5f;
      if (logits_kind_ == Logits::kSorted)
        row[i] = static_cast<float>(t % 2 == 0 ? i : row.size() - i) * 1e-4f;
    }
    if (logits_kind_ == Logits::kPeaked)
      for (int i = 0; i < 40; ++i)
        row[rng() % row.size()] = 14 + static_cast<float>(rng() % 1000) * 0.004f;
    if (logits_kind_ == Logits::kNotFinite && t % 3 > 0)
      row[rng() % row.size()] = t % 3 == 1 ? NAN : INFINITY;
  }

  int32_t RandomId(std::mt19937_64& rng) const {
    return static_cast<int32_t>(rng() % static_cast<uint64_t>(vocab_));
  }

  RowQuery Query(int64_t t, std::mt19937_64& rng) {
    RowQuery query;
    query.row = rows_ - 1 - t;
    query.draws = true;
    SamplingRow& row = query.sampling;
    row.seed = 7;
    row.position = static_cast<uint64_t>(t);
    row.temperature = draws_ == Draws::kGreedy ? 0.0f : 1.0f;
    if (draws_ == Draws::kTopK) row.top_k = 64, row.top_p = 0.95f;
    if (draws_ == Draws::kTopP) row.top_p = 0.9f;
    if (draws_ == Draws::kMinP) row.min_p = 0.05f, row.temperature = 1.7f;
    if (draws_ == Draws::kWideTopK) row.top_k = 1000, row.top_p = t % 2 == 0 ? 1.0f : 0.8f;
    if (draws_ == Draws::kMixed) Mix(t, rng, row);
    if (draws_ == Draws::kLong) PenaliseLong(row);
    if (draws_ == Draws::kScored || (draws_ == Draws::kMixed && t % 5 == 0)) Score(t, rng, query);
    return query;
  }

  // Of so many ids that a launch has no room for those of all rows.
  void PenaliseLong(SamplingRow& row) {
    auto& history = histories_.emplace_back(std::make_unique<std::vector<int32_t>>(Index(vocab_)));
    std::iota(history->begin(), history->end(), 0);
    row.history = *history;
    row.num_prompt = 5;
    row.repetition_penalty = 1.2f;
    row.frequency_penalty = 0.25f;
    row.top_k = 50;
  }

  // A different set of filters a row.
  void Mix(int64_t t, std::mt19937_64& rng, SamplingRow& row) {
    const auto bit = [&](int i) { return (t >> i & 1) != 0; };
    row.temperature = t % 7 == 0 ? 0.0f : bit(1) ? 0.7f : 1.0f;
    row.top_k = bit(0) ? 40 : bit(2) ? 300 : 0;
    row.top_p = bit(3) ? 0.9f : 1.0f;
    row.min_p = t % 5 == 1 ? 0.02f : 0.0f;
    auto& history = histories_.emplace_back(std::make_unique<std::vector<int32_t>>());
    for (int i = 0; i < 200; ++i)
      history->push_back(RandomId(rng) % 50 + (i % 3 == 0 ? RandomId(rng) / 2 : 0));
    row.history = *history;
    row.num_prompt = 90;
    if (bit(0)) row.repetition_penalty = 1.3f;
    if (bit(1)) row.presence_penalty = 0.4f, row.frequency_penalty = 0.3f;
    row.suppress = suppress_;
    auto& biases = biases_.emplace_back(std::make_unique<std::vector<std::pair<int32_t, float>>>());
    if (bit(2))
      for (int i = 0; i < 30; ++i)
        biases->emplace_back(i * 3 + 1, static_cast<float>(i % 5) - 1.5f);
    row.bias = *biases;
    auto& words = bad_words_.emplace_back(std::make_unique<std::vector<std::vector<int32_t>>>());
    if (bit(3)) *words = {{5}, {history->back(), 9}, {1, 2, 3}};
    row.bad_words = *words;
    if (t % 6 == 4) row.held_off = held_off_;
    auto& allowed = allowed_.emplace_back(std::make_unique<std::vector<int32_t>>());
    if (t % 4 == 3)
      for (int i = 0; i < 90; ++i) allowed->push_back(RandomId(rng));
    if (t % 16 == 11) *allowed = {suppress_[0]};  // nothing is left
    row.allowed = *allowed;
  }

  void Score(int64_t t, std::mt19937_64& rng, RowQuery& query) {
    query.wants_logprobs = true;
    query.num_top = static_cast<int>(t % (kNumTop + 1));
    asked_.push_back(std::make_unique<std::vector<int32_t>>());
    for (int i = 0; i < kNumAsked; ++i) asked_.back()->push_back(RandomId(rng));
    query.asked = *asked_.back();
    query.draws = t % 2 == 0;
    query.token = RandomId(rng);
  }

  template <typename T>
  using Kept = std::vector<std::unique_ptr<std::vector<T>>>;

  int64_t rows_, vocab_;
  Logits logits_kind_;
  Draws draws_;
  const std::vector<int32_t> suppress_ = {3, 17, 31}, held_off_ = {2, 8};
  Kept<int32_t> histories_, allowed_, asked_;
  Kept<std::pair<int32_t, float>> biases_;
  Kept<std::vector<int32_t>> bad_words_;
  std::vector<RowQuery> queries_;
  int logits_ = 0, tokens_ = 0, ids_ = 0, logprobs_ = 0;
};

}  // namespace

void AddSamplingCases(OpCases& cases) {
  const auto add = [&](int64_t rows, int64_t vocab, Logits logits, Draws draws) {
    cases.push_back(std::make_unique<SamplingCase>(rows, vocab, logits, draws));
  };
  for (const Draws draws : {Draws::kGreedy, Draws::kTopK, Draws::kTopP, Draws::kPlain, Draws::kMinP,
                            Draws::kWideTopK, Draws::kMixed, Draws::kScored})
    for (const Logits logits : {Logits::kFlat, Logits::kPeaked, Logits::kTies, Logits::kEqual,
                                Logits::kSorted, Logits::kNotFinite}) {
      add(16, 2048, logits, draws);
      add(8, 262144, logits, draws);
    }
  add(5, 262144, Logits::kFlat, Draws::kLong);
  add(64, 2048, Logits::kTies, Draws::kMixed);
  add(33, 100, Logits::kFlat, Draws::kMixed);
  add(7, 36, Logits::kTies, Draws::kScored);
  add(64, 20000, Logits::kPeaked, Draws::kMixed);
  add(64, 262144, Logits::kPeaked, Draws::kMixed);
}

}  // namespace lapidary
