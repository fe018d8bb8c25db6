#include "ops/row_sampler.h"

#include "ops/cpu/cpu_backend.h"

namespace lapidary {
namespace {

class CpuRowSampler : public RowSampler {
 public:
  explicit CpuRowSampler(int vocab_size) : sampler_(vocab_size) {}

  RowDraws Queue(Tensor logits, std::span<const RowQuery> queries) override {
    ++call_;
    answers_.assign(queries.size(), {});
    for (size_t i = 0; i < queries.size(); ++i)
      if (Counts(queries, i))
        answers_[i] = Answer(
            {logits.Rows(queries[i].row, 1).f32(), static_cast<size_t>(logits.cols())}, queries[i]);
    draws_.clear();
    for (const RowAnswer& answer : answers_) AddDraw(draws_, answer.finite, answer.token);
    return {View(draws_), call_};
  }

  std::span<RowAnswer> Answers(uint64_t call) override {
    CHECK(call == call_, "answers of call {}, the newest is {}", call, call_);
    return answers_;
  }

  Tensor Best(Tensor logits, std::span<const int32_t> masked) override {
    best_.clear();
    SamplingRow greedy;
    greedy.temperature = 0;
    greedy.suppress = masked;
    for (int64_t i = 0; i < logits.rows(); ++i) {
      const std::span<const float> row(logits.Rows(i, 1).f32(), static_cast<size_t>(logits.cols()));
      const bool finite = AllFinite(row);
      AddDraw(best_, finite, finite ? sampler_.Sample(row, greedy) : std::nullopt);
    }
    return View(best_);
  }

 private:
  static void AddDraw(std::vector<int32_t>& draws, bool finite, std::optional<int32_t> token) {
    draws.push_back(token.value_or(-1));
    draws.push_back(finite);
  }
  static Tensor View(std::vector<int32_t>& draws) {
    return MakeTensor(draws.data(), DType::kI32, static_cast<int64_t>(draws.size() / 2), 2);
  }

  bool Counts(std::span<const RowQuery> queries, size_t i) const {
    return !queries[i].continues || answers_[i - 1].token == queries[i].sampling.history.back();
  }

  RowAnswer Answer(std::span<const float> logits, const RowQuery& query) {
    RowAnswer answer;
    answer.finite = AllFinite(logits);
    if (!answer.finite) return answer;
    if (query.draws) answer.token = sampler_.Sample(logits, query.sampling);
    if (!query.wants_logprobs || (query.draws && !answer.token)) return answer;
    const RowLogprobs row(logits);
    TokenLogprobs& result = answer.logprobs.emplace();
    result.token = query.draws ? *answer.token : query.token;
    result.logprob = row.of(result.token);
    result.top = row.Top(query.num_top);
    for (const int32_t id : query.asked) result.asked.emplace_back(id, row.of(id));
    return answer;
  }

  Sampler sampler_;
  uint64_t call_ = 0;
  std::vector<RowAnswer> answers_;
  std::vector<int32_t> draws_, best_;
};

}  // namespace

std::unique_ptr<RowSampler> MakeCpuRowSampler(int vocab_size) {
  return std::make_unique<CpuRowSampler>(vocab_size);
}

std::unique_ptr<RowSampler> cpu::CpuBackend::MakeRowSampler(int vocab_size, int,
                                                            const SlotStates*) {
  return MakeCpuRowSampler(vocab_size);
}

}  // namespace lapidary
