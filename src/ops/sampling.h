// Sampling: from one row of logits to a token id and log probabilities. Each row is a function of
// its own logits, parameters and history only, so results never depend on the batch.
#ifndef LAPIDARY_OPS_SAMPLING_H_
#define LAPIDARY_OPS_SAMPLING_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace lapidary {

// Parameters and history of one row. Filters apply in this order: suppress, bias, penalties, mask
// (allowed, bad words, held off), temperature, top-k, top-p, min-p. Ids are below the vocabulary
// size; ties go to the lower id. A draw goes through the candidates best first, or, where none of
// the last three filters is on, in the order of ids. Spans and pointers must live as long as the
// call.
struct SamplingRow {
  float temperature = 1.0f;  // < 1e-5 is greedy
  int top_k = 0;             // 0: off
  float top_p = 1.0f;
  float min_p = 0.0f;
  float presence_penalty = 0.0f, frequency_penalty = 0.0f;  // over generated tokens
  float repetition_penalty = 1.0f;                          // over the whole history
  uint64_t seed = 0;
  uint32_t choice = 0;
  uint64_t position = 0;             // of the token to be drawn
  std::span<const int32_t> history;  // prompt and generated tokens
  size_t num_prompt = 0;             // of history
  std::span<const int32_t> suppress;
  std::span<const std::pair<int32_t, float>> bias;
  std::span<const int32_t> allowed;  // empty: all
  std::span<const std::vector<int32_t>> bad_words;
  std::span<const int32_t> held_off;  // masked too: stop ids before min_tokens
};

// The n-th uniform number of a stream, in [0, 1): depends on these three only.
double UniformAt(uint64_t seed, uint32_t choice, uint64_t position);

bool AllFinite(std::span<const float> logits);

// Log probabilities of the raw distribution of one row.
class RowLogprobs {
 public:
  // logits are finite and outlive this object.
  explicit RowLogprobs(std::span<const float> logits);
  float of(int32_t id) const;
  // The n best, descending.
  std::vector<std::pair<int32_t, float>> Top(int n) const;

 private:
  std::span<const float> logits_;
  double log_sum_ = 0;
};

// A row of logits with a few of them changed: the row itself is read in place, only blocks with a
// change are copied.
class EditedRow {
 public:
  static constexpr size_t kBlock = 64;

  explicit EditedRow(size_t size);
  // The row outlives what follows; earlier changes are forgotten.
  void Reset(std::span<const float> row);
  // All ids but these are masked.
  void KeepOnly(std::span<const int32_t> ids);
  float& at(int32_t id);
  size_t num_blocks() const { return blocks_.size(); }
  std::span<const float> block(size_t i) const {
    return {blocks_[i], std::min(kBlock, size_ - i * kBlock)};
  }

 private:
  const size_t size_;
  std::vector<const float*> blocks_;  // into the row or into copy_
  std::vector<float> copy_;
};

// Keeps scratch of vocabulary size; one thread.
class Sampler {
 public:
  explicit Sampler(int vocab_size);
  // logits are finite and stay as they are. Nothing when the masks leave no token.
  std::optional<int32_t> Sample(std::span<const float> logits, const SamplingRow& row);

 private:
  void Penalize(const SamplingRow& row);
  void Mask(const SamplingRow& row);
  float FindBest();
  int32_t IdOf(float best) const;
  float Threshold(const SamplingRow& row, float best);
  void Collect(const SamplingRow& row, float threshold);
  int32_t Draw(const SamplingRow& row, float best);
  int32_t DrawPlain(const SamplingRow& row, float best);

  const size_t vocab_size_;
  EditedRow row_;
  std::vector<int32_t> counts_;                 // zero between calls
  std::vector<bool> seen_;                      // false between calls
  std::vector<float> maxima_, ordered_maxima_;  // of each block
  std::vector<uint64_t> candidates_, scratch_;  // see PackCandidate in cpu/sampling.cc
  std::vector<double> weights_;
};

}  // namespace lapidary

#endif  // LAPIDARY_OPS_SAMPLING_H_
