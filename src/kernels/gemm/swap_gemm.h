// Products whose few rows are the N of the tensor cores and whose weights are the M (swap-AB):
// decode GEMMs, and the experts of a mixture at any number of rows. Bound by the reading of the
// weights.
#ifndef LAPIDARY_KERNELS_GEMM_SWAP_GEMM_H_
#define LAPIDARY_KERNELS_GEMM_SWAP_GEMM_H_

#include "base/bf16.h"
#include "kernels/common/launch.h"
#include "kernels/common/tensor_map.h"
#include "kernels/gemm/cublaslt.h"

namespace lapidary::kernels {

inline constexpr int kMaxSwapRows = 128;
inline constexpr int kMaxExperts = 256;
inline constexpr int kSwapWeightRows = 128;  // of an expert's tile, and of most others

struct SwapGemmParams {
  TensorMap weight_map, in_map;
  int in_box_rows = 0;  // of in_map: the tile's rows, or 1 where rows are gathered
  int num_rows = 0;     // T of a dense product; of experts their pairs
  int n = 0, k = 0;     // weight rows (of an expert's gates alone), in columns
  void* out = nullptr;
  int64_t out_stride = 0;
  bool out_f32 = false;
  SwapTiling tiling;  // of a dense product
  // What becomes of a dense product before it is stored, one of:
  bool gated = false;        // weight_map of MakeGateUpMap: gelu_tanh(gate) * up, n / 2 columns
  const Bf16* up = nullptr;  // [T,N] gelu_tanh(product) * up
  int64_t up_stride = 0;
  float cap = 0;  // cap * tanh(product / cap) where positive

  // Experts: rows of `in` in the order of the experts.
  const int32_t* expert_starts = nullptr;  // [E+1] first sorted row of each expert
  const int32_t* sorted_rows = nullptr;  // row of `in` of each sorted row, where rows are gathered
  int num_experts = 0;
};

// Maps are made once for a weight and once for an input buffer.
TensorMap MakeWeightMap(const Bf16* weight, int64_t rows, int64_t k, int64_t stride,
                        int tile_rows = kSwapWeightRows);
TensorMap MakeGateUpMap(const Bf16* weight, int64_t experts, int64_t width, int64_t k,
                        int tile_rows = kSwapWeightRows);
TensorMap MakeInputMap(const Bf16* in, int64_t rows, int64_t k, int64_t stride, int tile_rows);

// out [T,N] = in [T,K] weight [N,K]^T for T up to kMaxSwapRows.
void LaunchSwapGemm(const SwapGemmParams& params, Stream stream);
// The input rows of a block that takes all of so many.
int SwapTile(int num_rows);
// The number of splits that fills the machine best.
int SwapSplits(int n, int k);
// One that is the same for any part of a weight's rows, so that a sum does not depend on which
// other columns are computed with it.
int InvariantSplits(int k);

// Both products of the experts. `average_rows` picks the tile: rows an expert has on average.
// act [pairs,F] bf16 = gelu_tanh(gate z) * (up z), weight_map of MakeGateUpMap, n = F.
void LaunchExpertGateUp(const SwapGemmParams& params, int average_rows, Stream stream);
// out [pairs,D] f32 = down act, weight_map of MakeWeightMap over [E*D,F], n = D.
void LaunchExpertDown(const SwapGemmParams& params, int average_rows, Stream stream);
int ExpertTile(int average_rows);

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_GEMM_SWAP_GEMM_H_
