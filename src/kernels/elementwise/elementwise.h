// Kernels over rows: norms, residuals, activations, gathers. Widths are multiples of 8 and rows
// start at 16-byte borders; the launchers check both. T rows, D columns.
#ifndef LAPIDARY_KERNELS_ELEMENTWISE_ELEMENTWISE_H_
#define LAPIDARY_KERNELS_ELEMENTWISE_ELEMENTWISE_H_

#include <cstdint>

#include "base/bf16.h"
#include "kernels/common/launch.h"

namespace lapidary::kernels {

// out = in * (mean(in^2) + eps)^-1/2 * weight over `group` columns at a time. out is bf16, or f32
// with out_f32.
struct RmsNormParams {
  const Bf16* in = nullptr;      // [T,D]
  void* out = nullptr;           // [T,D], may be in
  const Bf16* weight = nullptr;  // [group] or null
  int64_t in_stride = 0, out_stride = 0;
  int num_rows = 0, num_cols = 0, group = 0;
  float eps = 0;
  bool out_f32 = false;
};
void LaunchRmsNorm(const RmsNormParams& params, Stream stream);

// x = round((x + round(norm(h; post_norm))) * scale); h = norm(x; next_norm) unless it is null.
struct NormAddNormParams {
  Bf16* h = nullptr;  // [T,D]
  Bf16* x = nullptr;  // [T,D]
  const Bf16* post_norm = nullptr;
  const Bf16* next_norm = nullptr;
  int64_t h_stride = 0, x_stride = 0;
  int num_rows = 0, num_cols = 0;
  float scale = 1, eps = 0;
};
void LaunchNormAddNorm(const NormAddNormParams& params, Stream stream);

// ple = (norm(round(context * context_scale); norm) + tokens) * 2^-1/2 a group of 256 columns at a
// time, in place on context.
struct PerLayerInputParams {
  Bf16* context = nullptr;       // [T,n*group]
  const Bf16* tokens = nullptr;  // [T,n*group]
  const Bf16* norm = nullptr;    // [group]
  int64_t context_stride = 0, tokens_stride = 0;
  int num_rows = 0, num_cols = 0, group = 0;
  float context_scale = 1, eps = 0;
};
void LaunchPerLayerInput(const PerLayerInputParams& params, Stream stream);

// One pass over [T,D] pairs of bf16.
struct ElementwiseParams {
  const Bf16* a = nullptr;
  const Bf16* b = nullptr;
  Bf16* out = nullptr;
  int64_t a_stride = 0, b_stride = 0, out_stride = 0;
  int num_rows = 0, num_cols = 0;
  float scale = 1;
};
void LaunchAddScale(const ElementwiseParams& params,
                    Stream stream);  // (a + b) * scale, b may be null
void LaunchGeluMul(const ElementwiseParams& params, Stream stream);  // gelu_tanh(a) * b

// x = cap * tanh(x / cap) over f32 [T,D].
struct SoftCapParams {
  float* x = nullptr;
  int64_t stride = 0;
  int num_rows = 0, num_cols = 0;
  float cap = 0;
};
void LaunchSoftCap(const SoftCapParams& params, Stream stream);

// bf16 rows of f32 ones, for a GEMM.
struct RoundRowsParams {
  const float* in = nullptr;
  Bf16* out = nullptr;
  int64_t in_stride = 0, out_stride = 0;
  int num_rows = 0, num_cols = 0;
};
void LaunchRoundRows(const RoundRowsParams& params, Stream stream);

// out[i] = in[rows[i]] * scale, NaN where rows[i] < 0. In place (out = in) only with ascending
// rows: then rows[i] >= i.
struct GatherParams {
  const void* in = nullptr;  // [table_rows,D] bf16, or f32 with in_f32
  bool in_f32 = false;
  Bf16* out = nullptr;            // [T,D]
  const int32_t* rows = nullptr;  // [T]
  int64_t in_stride = 0, out_stride = 0;
  int num_rows = 0, num_cols = 0;
  float scale = 1;
};
void LaunchGather(const GatherParams& params, Stream stream);

// out[t] = ids[t], or `to` where ids[t] is one of `from`.
struct ReplaceIdsParams {
  const int32_t* ids = nullptr;
  int32_t* out = nullptr;
  int num_rows = 0, num_from = 0;
  int32_t from[16] = {}, to = 0;
};
void LaunchReplaceIds(const ReplaceIdsParams& params, Stream stream);

// out[indices[i]] = ids[i]; no index occurs twice.
struct ScatterIdsParams {
  int32_t* out = nullptr;
  const int32_t* indices = nullptr;
  const int32_t* ids = nullptr;
  int count = 0;
};
void LaunchScatterIds(const ScatterIdsParams& params, Stream stream);

// Dummy numbers (ops/dummy_rule.h).
struct FillDummyParams {
  Bf16* out = nullptr;
  int64_t count = 0;
  uint64_t key = 0;
  float centre = 0, step = 0;
};
void LaunchFillDummy(const FillDummyParams& params, Stream stream);

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_ELEMENTWISE_ELEMENTWISE_H_
