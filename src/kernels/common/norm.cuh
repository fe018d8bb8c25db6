// What kernels with norms share: a thread has eight neighbouring columns of a row.
#ifndef LAPIDARY_KERNELS_COMMON_NORM_CUH_
#define LAPIDARY_KERNELS_COMMON_NORM_CUH_

#include "kernels/common/math.cuh"

namespace lapidary::kernels {

constexpr int kVector = 8;  // bf16 of 16 bytes

__device__ __forceinline__ double SumSquares(const float (&v)[kVector]) {
  static_assert(kVector == 8, "two fours");
  return SumSquares4(v[0], v[1], v[2], v[3]) + SumSquares4(v[4], v[5], v[6], v[7]);
}

// Eight weights of a norm, ones where there are none. Nobody writes weights: they are asked for
// before the kernel ahead is over.
__device__ __forceinline__ uint4 LoadNorm(const Bf16* weight, int column) {
  constexpr uint32_t kOnes = 0x3f803f80u;
  if (weight == nullptr) return make_uint4(kOnes, kOnes, kOnes, kOnes);
  return __ldg(reinterpret_cast<const uint4*>(weight + column));
}

// v = v * factor * weight, as f32.
__device__ __forceinline__ void Scale(float (&v)[kVector], float factor, const uint4& weight) {
  float w[kVector];
  Unpack8(weight, w);
#pragma unroll
  for (int i = 0; i < kVector; ++i) v[i] = v[i] * factor * w[i];
}

// The same, rounded to bf16 as a norm's output is.
__device__ __forceinline__ void ScaleRounded(float (&v)[kVector], float factor,
                                             const uint4& weight) {
  Scale(v, factor, weight);
#pragma unroll
  for (int i = 0; i < kVector; ++i) v[i] = RoundedBf16(v[i]);
}

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_COMMON_NORM_CUH_
