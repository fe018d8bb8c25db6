// The small kernels of the mixture of experts: router, sorting of (row, choice) pairs by expert,
// and the weighted sum. The products are in gemm/swap_gemm.
#ifndef LAPIDARY_KERNELS_MOE_MOE_H_
#define LAPIDARY_KERNELS_MOE_MOE_H_

#include <cstdint>

#include "base/bf16.h"
#include "kernels/common/launch.h"

namespace lapidary::kernels {

inline constexpr int kMaxTopK = 8;

// The top K experts of each row by softmax(proj (norm(x) * scale * D^-1/2)), ties to the lower id,
// weights renormalised over the K and scaled by expert. Products are exact and sums f32. A row that
// is not finite gets id -1 and weight 0. With z also the experts' input, z = norm(x; z_norm).
struct RouterParams {
  const Bf16* x = nullptr;             // [T,D]
  const Bf16* scale = nullptr;         // [D]
  const Bf16* proj = nullptr;          // [E,D]
  const Bf16* expert_scale = nullptr;  // [E]
  int32_t* experts = nullptr;          // [T,K]
  float* weights = nullptr;            // [T,K]
  Bf16* z = nullptr;                   // [T,D], or null
  const Bf16* z_norm = nullptr;        // [D]
  int64_t x_stride = 0, experts_stride = 0, weights_stride = 0, z_stride = 0;
  int num_rows = 0, hidden = 0, num_experts = 0, top_k = 0;
  float eps = 0;
};
void LaunchRouter(const RouterParams& params, Stream stream);

// Pairs (row, choice) in the order of their experts, within an expert by row.
struct ExpertSortParams {
  const int32_t* experts = nullptr;  // [T,K]
  int64_t experts_stride = 0;
  int num_rows = 0, top_k = 0, num_experts = 0;
  int32_t* starts = nullptr;       // [E+1]
  int32_t* sorted_rows = nullptr;  // [T*K] row of each sorted pair
  int32_t* places = nullptr;       // [T*K] where pair t*K+j went; -1 if its id is none
  // [max_tally_rows + 1,2], or null: of a call whose rows with experts are t, row t counts one call
  // and its distinct experts.
  uint64_t* tally = nullptr;
  int max_tally_rows = 0;
};
void LaunchExpertSort(const ExpertSortParams& params, Stream stream);

// out[t] = sum over j in order of weights[t,j] * pairs[places[t,j]].
struct ExpertSumParams {
  const float* pairs = nullptr;  // [T*K,D]
  const int32_t* places = nullptr;
  const float* weights = nullptr;
  int64_t weights_stride = 0, out_stride = 0;
  Bf16* out = nullptr;  // [T,D]
  int num_rows = 0, hidden = 0, top_k = 0;
};
void LaunchExpertSum(const ExpertSumParams& params, Stream stream);

// The end of a layer: h = norm(h; dense_norm) + norm(the sum; expert_norm), then x = (x + norm(h;
// post_norm)) * scale and h = norm(x; next_norm) unless that is null. Each result is rounded.
struct ExpertSumNormParams {
  ExpertSumParams sum;  // out is not used
  Bf16* h = nullptr;    // [T,D]
  Bf16* x = nullptr;    // [T,D]
  const Bf16* dense_norm = nullptr;
  const Bf16* expert_norm = nullptr;
  const Bf16* post_norm = nullptr;
  const Bf16* next_norm = nullptr;
  int64_t h_stride = 0, x_stride = 0;
  float scale = 1, eps = 0;
};
void LaunchExpertSumNorm(const ExpertSumNormParams& params, Stream stream);

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_MOE_MOE_H_
