// What a Linear kernel gets. Kept free of the standard library: the kernels are compiled with flags
// of newer instruction sets, and an inline function compiled there could be the copy that the
// linker keeps for everyone.
#ifndef LAPIDARY_OPS_CPU_LINEAR_PARAMS_H_
#define LAPIDARY_OPS_CPU_LINEAR_PARAMS_H_

#include <cstdint>

namespace lapidary {
struct Bf16;
}

namespace lapidary::cpu {

struct LinearParams {
  const float* x = nullptr;  // [M,K], rows x_stride elements apart
  int64_t x_stride = 0;
  const Bf16* w = nullptr;  // [N,K], rows w_stride elements apart
  int64_t w_stride = 0;
  float* y = nullptr;  // [M,N], rows y_stride elements apart
  int64_t y_stride = 0;
  int64_t m = 0, n = 0, k = 0;  // any may be 0; K = 0 gives zeros
};

// Computes columns [n_begin, n_end) of all rows.
using LinearKernel = void (*)(const LinearParams& params, int64_t n_begin, int64_t n_end);

void LinearPlain(const LinearParams& params, int64_t n_begin, int64_t n_end);
void LinearAvx2(const LinearParams& params, int64_t n_begin, int64_t n_end);
void LinearAvx512(const LinearParams& params, int64_t n_begin, int64_t n_end);

}  // namespace lapidary::cpu

#endif  // LAPIDARY_OPS_CPU_LINEAR_PARAMS_H_
