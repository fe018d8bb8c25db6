// Drawing and scoring rows of logits where they lie. Each row is a function of its own logits and
// parameters; ops/sampling.h defines what it gives. Three kernels: RowChunks reads a row once, in
// chunks, and keeps of each its best and what is summed; RowDraw draws from the best of a row where
// these decide; RowSearch does the others, with the whole row in the shared memory of a cluster.
// RowScore gives log probabilities. Weights of up to 64 candidates are double, all others f32.
#ifndef LAPIDARY_KERNELS_SAMPLING_ROW_SAMPLING_H_
#define LAPIDARY_KERNELS_SAMPLING_ROW_SAMPLING_H_

#include <cstdint>

#include "kernels/common/launch.h"

namespace lapidary::kernels {

inline constexpr int kRowChunk = 16384;    // logits of a block of RowChunks
inline constexpr int kMaxRowChunks = 16;   // so V <= 262,144
inline constexpr int kMaxChunkBest = 256;  // kept of a chunk, at least the best 64 of it
inline constexpr int kMaxExactTopK = 64;   // RowDraw alone decides up to here
inline constexpr int kMaxTopLogprobs = 20;

struct IdRange {
  int32_t begin = 0, end = 0;
};
struct IdBias {
  int32_t id;
  float bias;
};
// An id of the history and how often it was generated.
struct IdCount {
  int32_t id, count;
};

// What is asked of one row; ranges are of the lists in RowSamplingParams.
struct RowTask {
  int32_t row = 0;     // of the logits
  int32_t draws = 0;   // 0: none is drawn, `token` is scored
  int32_t scores = 0;  // log probabilities are wanted
  int32_t token = -1;
  int32_t num_top = 0;
  int32_t top_k = 0;      // 0: off
  float temperature = 0;  // 0: greedy
  float top_p = 1, min_p = 0;
  float presence_penalty = 0, frequency_penalty = 0, repetition_penalty = 1;
  double uniform = 0;  // in [0, 1)
  IdRange biases;      // of distinct ids
  IdRange counts;      // of distinct ids
  IdRange masked;
  int32_t allowed = -1;  // first word of its bits [V/32]; -1: all
  int32_t slot = -1;     // not negative: `uniform` is that of the offset-th token behind its newest
  int32_t offset = 0;
  IdRange asked;  // whose log probabilities go to asked_logprobs, same places
};

struct RowResult {
  int32_t token;      // -1: the masks leave none, or none was to be drawn
  int32_t is_finite;  // if not, nothing else counts
};
// Of a row that is scored; written as far as num_top goes.
struct RowScores {
  float logprob;
  int32_t top_ids[kMaxTopLogprobs];
  float top_logprobs[kMaxTopLogprobs];
};

// The best of a chunk: at least 64, or all that are not masked. `complete` and `enough` are order
// keys: every candidate from `complete` on is listed; at least 64 listed ones reach `enough`.
struct ChunkBest {
  int32_t count;
  uint32_t complete, enough;
};
// Of one chunk of one row, between the kernels.
struct ChunkSummary {
  double raw_sum;  // of exp(logit - raw_max), in rows that are scored
  double sum;      // of exp(x - max), x: after all filters and the temperature
  float raw_max, max;
  ChunkBest best, raw_best;
  int32_t is_finite;
};

struct RowSamplingParams {
  const float* logits = nullptr;  // [O,V]
  int64_t logits_stride = 0;
  int vocab = 0, num_tasks = 0;
  const RowTask* tasks = nullptr;
  const IdBias* biases = nullptr;
  const IdCount* counts = nullptr;
  const int32_t* masked = nullptr;
  const uint32_t* allowed = nullptr;
  const int32_t* asked = nullptr;
  ChunkSummary* chunks = nullptr;  // [tasks,kMaxRowChunks]
  uint64_t* best = nullptr;        // [tasks,kMaxRowChunks,kMaxChunkBest]
  uint64_t* raw_best = nullptr;    // likewise, of rows that are scored
  RowResult* results = nullptr;    // [tasks]
  RowScores* scores = nullptr;     // likewise
  float* asked_logprobs = nullptr;
};

// What some task of a launch needs.
struct RowSamplingWork {
  bool searches = false;  // a draw with top-k off or above 64
  bool scores = false;
};
void LaunchRowSampling(const RowSamplingParams& params, const RowSamplingWork& work, Stream stream);

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_SAMPLING_ROW_SAMPLING_H_
