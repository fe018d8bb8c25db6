#include "ops/row_sampler.h"

#include "ops/cpu/cpu_backend.h"

namespace lapidary {
namespace {

class CpuRowSampler : public RowSampler {
 public:
  explicit CpuRowSampler(int vocab_size) : sampler_(vocab_size) {}

  std::span<RowAnswer> Sample(Tensor logits, std::span<const RowQuery> queries) override {
    answers_.assign(queries.size(), {});
    for (size_t i = 0; i < queries.size(); ++i)
      if (Counts(queries, i))
        answers_[i] = Answer(
            {logits.Rows(queries[i].row, 1).f32(), static_cast<size_t>(logits.cols())}, queries[i]);
    return answers_;
  }

 private:
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
  std::vector<RowAnswer> answers_;
};

}  // namespace

std::unique_ptr<RowSampler> MakeCpuRowSampler(int vocab_size) {
  return std::make_unique<CpuRowSampler>(vocab_size);
}

std::unique_ptr<RowSampler> cpu::CpuBackend::MakeRowSampler(int vocab_size, int) {
  return MakeCpuRowSampler(vocab_size);
}

}  // namespace lapidary
