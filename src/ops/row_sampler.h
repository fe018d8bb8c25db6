// RowSampler: draws and scores all rows of a step in one call, beside the logits: only tokens,
// flags and log probabilities come back. What a row gives is defined by Sampler and RowLogprobs.
#ifndef LAPIDARY_OPS_ROW_SAMPLER_H_
#define LAPIDARY_OPS_ROW_SAMPLER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "device/tensor.h"
#include "ops/sampling.h"

namespace lapidary {

struct TokenLogprobs {
  int32_t token = 0;
  float logprob = 0;  // of the raw distribution: after the soft cap, before any filter
  std::vector<std::pair<int32_t, float>> top;    // descending; ties to the lower id
  std::vector<std::pair<int32_t, float>> asked;  // in the order of the question
};

// What is asked of one row of logits.
struct RowQuery {
  int64_t row = 0;
  bool draws = false;
  SamplingRow sampling;  // when it draws
  // Not negative: a device alone knows how long the sequence of this slot is (SlotStates); the
  // token to be drawn is the offset-th behind its newest, sampling.position and history count for
  // nothing.
  int32_t slot = -1, offset = 0;
  // The row verifies a draft: it draws behind the query before it, and counts only if that one
  // draws sampling.history.back(). If not, its answer is anything.
  bool continues = false;
  bool wants_logprobs = false;  // of the token drawn, or of `token` where none is
  int32_t token = -1;
  int num_top = 0;
  std::span<const int32_t> asked;
};

struct RowAnswer {
  bool finite = true;            // all logits of the row; if not, nothing else is answered
  std::optional<int32_t> token;  // none: nothing was to be drawn, or the masks left nothing
  std::optional<TokenLogprobs> logprobs;
};

// What a queued call drew: [Q,2] i32 beside the logits, the token or -1, and whether the row is
// finite.
struct RowDraws {
  Tensor tokens;
  uint64_t call = 0;
};

class RowSampler {
 public:
  virtual ~RowSampler() = default;
  // logits [O,V] f32, where the model of this backend leaves them. Tokens are valid until the call
  // after the next one.
  virtual RowDraws Queue(Tensor logits, std::span<const RowQuery> queries) = 0;
  // Of one of the two newest calls, an answer a query, in order; waits. Valid until the next call
  // of this sampler.
  virtual std::span<RowAnswer> Answers(uint64_t call) = 0;
  // The largest of each row of logits [B,V], except for masked ids, as RowDraws::tokens. Valid
  // until the next call of Best.
  virtual Tensor Best(Tensor logits, std::span<const int32_t> masked) = 0;

  std::span<RowAnswer> Sample(Tensor logits, std::span<const RowQuery> queries) {
    return Answers(Queue(logits, queries).call);
  }
};

// The definition, row by row; rows behind a draft that was not drawn are skipped.
std::unique_ptr<RowSampler> MakeCpuRowSampler(int vocab_size);

}  // namespace lapidary

#endif  // LAPIDARY_OPS_ROW_SAMPLER_H_
