// Linear on the CPU: y = x W^T, f32 arithmetic over bf16 weights, in one fixed order whatever the number of rows and
// whatever the instruction set.
//
// The order of one dot product over k = 0..K-1: 16 virtual lanes, lane l accumulates with fma the terms k with
// k mod 16 = l in ascending k, starting from 0; then the lanes are added as a tree: l + (l + 8), then + 4, + 2, + 1.
#ifndef LAPIDARY_OPS_CPU_LINEAR_H_
#define LAPIDARY_OPS_CPU_LINEAR_H_

#include <cstdint>

#include "base/bf16.h"
#include "base/worker_pool.h"

namespace lapidary::cpu {

struct LinearParams {
  const float* x = nullptr;  // [M,K], rows x_stride elements apart
  int64_t x_stride = 0;
  const Bf16* w = nullptr;   // [N,K], rows w_stride elements apart, any alignment of 2 bytes
  int64_t w_stride = 0;
  float* y = nullptr;        // [M,N], rows y_stride elements apart
  int64_t y_stride = 0;
  int64_t m = 0, n = 0, k = 0;  // any of them may be 0; K = 0 gives zeros
};

// Dispatches to the best instruction set, chosen once at start: all give the same bits.
void Linear(const LinearParams& params, WorkerPool& pool);

// The instruction sets by name ("plain", "avx2", "avx512"); used by the dispatcher, tests and ops_bench.
using LinearKernel = void (*)(const LinearParams& params, int64_t n_begin, int64_t n_end);
struct LinearVariant {
  const char* name;
  LinearKernel kernel;  // computes columns [n_begin, n_end) of all rows
  bool supported;       // by this machine
};
inline constexpr int kNumLinearVariants = 3;
const LinearVariant* LinearVariants();  // [kNumLinearVariants], slowest first

}  // namespace lapidary::cpu

#endif  // LAPIDARY_OPS_CPU_LINEAR_H_
