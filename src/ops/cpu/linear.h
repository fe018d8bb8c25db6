// Linear on the CPU: y = x W^T, f32 arithmetic over bf16 weights, in one fixed order whatever the
// number of rows and whatever the instruction set.
//
// The order of one dot product over k = 0 .. K-1: 16 virtual lanes; lane l takes the terms with k
// mod 16 = l in ascending k by fma, starting from +0; then the lanes are added as a tree: l + (l +
// 8), then + 4, + 2, + 1.
#ifndef LAPIDARY_OPS_CPU_LINEAR_H_
#define LAPIDARY_OPS_CPU_LINEAR_H_

#include "base/worker_pool.h"
#include "ops/cpu/linear_params.h"

namespace lapidary::cpu {

// Dispatches to the best instruction set of this machine, chosen once: all give the same bits.
void Linear(const LinearParams& params, WorkerPool& pool);
// The same with a chosen variant; for tests and ops_bench.
void Linear(const LinearParams& params, WorkerPool& pool, LinearKernel kernel);

struct LinearVariant {
  const char* name;  // "plain", "avx2", "avx512"
  LinearKernel kernel;
  bool supported;  // by this machine
};
inline constexpr int kNumLinearVariants = 3;
const LinearVariant* LinearVariants();     // [kNumLinearVariants], slowest first
const LinearVariant& BestLinearVariant();  // that this machine supports

}  // namespace lapidary::cpu

#endif  // LAPIDARY_OPS_CPU_LINEAR_H_
