// Numbers on the device: bf16 pairs, warp and block sums in one fixed order, the model's
// transcendental functions.
#ifndef LAPIDARY_KERNELS_COMMON_MATH_CUH_
#define LAPIDARY_KERNELS_COMMON_MATH_CUH_

#include <cstdint>

#include "base/bf16.h"

namespace lapidary::kernels {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr float kLog2E = 1.4426950408889634f;

__device__ __forceinline__ float LowHalf(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float HighHalf(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}
__device__ __forceinline__ float LoadFloat(Bf16 value) {
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}

// Two floats to two bf16, round to nearest even; `low` lands at the lower address.
__device__ __forceinline__ uint32_t PackBf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
__device__ __forceinline__ Bf16 RoundBf16(float value) {
  return Bf16{static_cast<uint16_t>(PackBf16(value, 0.0f))};
}
__device__ __forceinline__ float RoundedBf16(float value) { return LowHalf(PackBf16(value, 0.0f)); }

// Eight neighbouring bf16.
__device__ __forceinline__ void Unpack8(const uint4& packed, float (&values)[8]) {
  values[0] = LowHalf(packed.x), values[1] = HighHalf(packed.x);
  values[2] = LowHalf(packed.y), values[3] = HighHalf(packed.y);
  values[4] = LowHalf(packed.z), values[5] = HighHalf(packed.z);
  values[6] = LowHalf(packed.w), values[7] = HighHalf(packed.w);
}
__device__ __forceinline__ uint4 Pack8(const float (&values)[8]) {
  return make_uint4(PackBf16(values[0], values[1]), PackBf16(values[2], values[3]),
                    PackBf16(values[4], values[5]), PackBf16(values[6], values[7]));
}

__device__ __forceinline__ float WarpSum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kFullWarp, value, offset);
  return value;
}
__device__ __forceinline__ float WarpMax(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    value = fmaxf(value, __shfl_xor_sync(kFullWarp, value, offset));
  return value;
}

__device__ __forceinline__ double WarpSum(double value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kFullWarp, value, offset);
  return value;
}

// Sum over the block, the same bits in every thread. `partial` has a place a warp that no other
// call in flight uses. All threads call.
__device__ __forceinline__ double BlockSum(double value, double* partial) {
  value = WarpSum(value);
  const int num_warps = (blockDim.x + 31) / 32;
  if (num_warps == 1) return value;
  const int lane = threadIdx.x % 32;
  if (lane == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  // Where warps are few, each eight or sixteen lanes adds all of them.
  const int width = num_warps <= 8 ? 8 : num_warps <= 16 ? 16 : 32;
  value = lane % width < num_warps ? partial[lane % width] : 0.0;
  for (int offset = width / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(kFullWarp, value, offset);
  return value;
}

// A norm's sum of squares: four neighbours in f32, all of these in double, so that the order of the
// rest shows in no bit of NormFactor. As in ops/cpu/vector.h.
__device__ __forceinline__ double SumSquares4(float a, float b, float c, float d) {
  return static_cast<double>(__fadd_rn(__fadd_rn(__fmul_rn(a, a), __fmul_rn(b, b)),
                                       __fadd_rn(__fmul_rn(c, c), __fmul_rn(d, d))));
}
__device__ __forceinline__ float NormFactor(double sum, int count, float eps) {
  return 1.0f / sqrtf(static_cast<float>(sum) / static_cast<float>(count) + eps);
}

__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// tanh to about 2 ulp: exact at both ends, no cancellation near 0 that the callers could see.
__device__ __forceinline__ float Tanh(float x) {
  const float e = Exp2(2.0f * kLog2E * fabsf(x));
  return copysignf(1.0f - __fdividef(2.0f, e + 1.0f), x);
}
__device__ __forceinline__ float GeluTanh(float x) {
  const float inner = 0.79788456f * (x + 0.044715f * x * x * x);
  return 0.5f * x * (1.0f + Tanh(inner));
}

// Sine and cosine of an f32 angle, exact to f32: the angle is reduced by pi/2 in double, where
// 262,143 rad loses nothing that f32 could show; CUDA's own sinf would spill its reduction table.
__device__ __forceinline__ void SinCos(float angle, float& sine, float& cosine) {
  const double x = static_cast<double>(angle);
  const double quarter = rint(x * 0.63661977236758134308);
  double r = fma(-quarter, 1.57079632679489655800, x);
  r = fma(-quarter, 6.12323399573676603587e-17, r);
  const double r2 = r * r;
  // Taylor series: below 1e-13 on [-pi/4, pi/4].
  double s = 1.0 / 6227020800.0;
  s = fma(s, r2, -1.0 / 39916800.0);
  s = fma(s, r2, 1.0 / 362880.0);
  s = fma(s, r2, -1.0 / 5040.0);
  s = fma(s, r2, 1.0 / 120.0);
  s = fma(s, r2, -1.0 / 6.0);
  s = fma(s * r2, r, r);
  double c = -1.0 / 87178291200.0;
  c = fma(c, r2, 1.0 / 479001600.0);
  c = fma(c, r2, -1.0 / 3628800.0);
  c = fma(c, r2, 1.0 / 40320.0);
  c = fma(c, r2, -1.0 / 720.0);
  c = fma(c, r2, 1.0 / 24.0);
  c = fma(c, r2, -0.5);
  c = fma(c, r2, 1.0);
  const int quadrant = static_cast<int>(quarter) & 3;
  const double sine_part = quadrant & 1 ? c : s, cosine_part = quadrant & 1 ? s : c;
  sine = static_cast<float>(quadrant & 2 ? -sine_part : sine_part);
  cosine = static_cast<float>((quadrant + 1) & 2 ? -cosine_part : cosine_part);
}

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_COMMON_MATH_CUH_
