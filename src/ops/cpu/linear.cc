#include "ops/cpu/linear.h"

#include <cmath>

#include "base/bf16.h"
#include "base/check.h"

namespace lapidary::cpu {
namespace {

// Columns a thread takes at a time: enough to hide the hand-over, few enough to balance, and whole
// tiles of every kernel, which are 3 or 5 columns wide for many rows and 4 or 8 for one.
int64_t ColumnGrain(int64_t num_rows) { return num_rows == 1 ? 64 : 60; }

}  // namespace

void LinearPlain(const LinearParams& p, int64_t n_begin, int64_t n_end) {
  for (int64_t row = 0; row < p.m; ++row)
    for (int64_t column = n_begin; column < n_end; ++column) {
      const float* x = p.x + row * p.x_stride;
      const Bf16* w = p.w + column * p.w_stride;
      float lanes[16] = {};
      for (int64_t k = 0; k < p.k; ++k)
        lanes[k % 16] = std::fma(x[k], ToFloat(w[k]), lanes[k % 16]);
      for (int width = 8; width > 0; width /= 2)
        for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
      p.y[row * p.y_stride + column] = lanes[0];
    }
}

const LinearVariant* LinearVariants() {
  static const LinearVariant variants[kNumLinearVariants] = {
      {"plain", LinearPlain, true},
      {"avx2", LinearAvx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
      {"avx512", LinearAvx512,
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")},
  };
  return variants;
}

const LinearVariant& BestLinearVariant() {
  const LinearVariant* best = LinearVariants();
  for (int i = 1; i < kNumLinearVariants; ++i)
    if (LinearVariants()[i].supported) best = &LinearVariants()[i];
  return *best;
}

void Linear(const LinearParams& params, WorkerPool& pool, LinearKernel kernel) {
  CHECK(params.m >= 0 && params.n >= 0 && params.k >= 0, "m {} n {} k {}", params.m, params.n,
        params.k);
  if (params.m == 0) return;
  pool.ParallelFor(params.n, ColumnGrain(params.m),
                   [&](int64_t begin, int64_t end) { kernel(params, begin, end); });
}

void Linear(const LinearParams& params, WorkerPool& pool) {
  static const LinearKernel kernel = BestLinearVariant().kernel;
  Linear(params, pool, kernel);
}

}  // namespace lapidary::cpu
