// Sixteen floats at a time in the compiler's vectors, and the fixed orders of the CPU definitions.
// Only for sources compiled with the base flags: nothing here may be inlined into *_avx2.cc or
// *_avx512.cc.
#ifndef LAPIDARY_OPS_CPU_VECTOR_H_
#define LAPIDARY_OPS_CPU_VECTOR_H_

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "device/tensor.h"

namespace lapidary::cpu {

inline constexpr int64_t kLanes = 16;

// Four floats: what every processor of the base flags has. Spelled out where a loop's length is not
// known, which the compiler leaves scalar.
using Float4 [[gnu::vector_size(16)]] = float;
inline Float4 Load4(const float* from) {
  Float4 values;
  std::memcpy(&values, from, sizeof(values));
  return values;
}
inline void Store4(float* to, Float4 values) { std::memcpy(to, &values, sizeof(values)); }

struct Lanes {
  float v[kLanes] = {};
  float Sum() const {
    float a[8], b[4];
    for (int i = 0; i < 8; ++i) a[i] = v[i] + v[i + 8];
    for (int i = 0; i < 4; ++i) b[i] = a[i] + a[i + 4];
    return (b[0] + b[2]) + (b[1] + b[3]);
  }
};

// Sum of a[i] * b[i] in 16 lanes and a tree.
inline float Dot(const float* a, const float* b, int64_t n) {
  Float4 s0 = {}, s1 = {}, s2 = {}, s3 = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    s0 += Load4(a + i) * Load4(b + i);
    s1 += Load4(a + i + 4) * Load4(b + i + 4);
    s2 += Load4(a + i + 8) * Load4(b + i + 8);
    s3 += Load4(a + i + 12) * Load4(b + i + 12);
  }
  Lanes lanes;
  Store4(lanes.v, s0), Store4(lanes.v + 4, s1), Store4(lanes.v + 8, s2), Store4(lanes.v + 12, s3);
  for (int64_t l = 0; i + l < n; ++l) lanes.v[l] += a[i + l] * b[i + l];
  return lanes.Sum();
}

// out [n] += weights[j] * values[j] of the rows of values [num_rows,n], one row after the other.
inline void AddWeighted(float* out, const float* weights, const float* values, int64_t num_rows,
                        int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    float* const to = out + i;
    Float4 s0 = Load4(to), s1 = Load4(to + 4), s2 = Load4(to + 8), s3 = Load4(to + 12);
    for (int64_t j = 0; j < num_rows; ++j) {
      const float* const from = values + j * n + i;
      const Float4 weight = {weights[j], weights[j], weights[j], weights[j]};
      s0 += weight * Load4(from);
      s1 += weight * Load4(from + 4);
      s2 += weight * Load4(from + 8);
      s3 += weight * Load4(from + 12);
    }
    Store4(to, s0), Store4(to + 4, s1), Store4(to + 8, s2), Store4(to + 12, s3);
  }
  for (; i < n; ++i)
    for (int64_t j = 0; j < num_rows; ++j) out[i] += weights[j] * values[j * n + i];
}

// A norm's sum of squares: four neighbours in f32, all of these in double, so that the order of the
// rest shows in no bit of what a norm makes of it.
inline double SumSquares(const float* x, int64_t n) {
  const auto four = [](const float* v) {
    return static_cast<double>((v[0] * v[0] + v[1] * v[1]) + (v[2] * v[2] + v[3] * v[3]));
  };
  double sums[4] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int64_t k = 0; k < 4; ++k) sums[k] += four(x + i + 4 * k);
  for (; i + 4 <= n; i += 4) sums[0] += four(x + i);
  float rest[4] = {};
  for (int64_t k = 0; i + k < n; ++k) rest[k] = x[i + k];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]) + four(rest);
}

// e^x to about 2 ulp by range reduction and a degree-6 polynomial; the same bits on every machine,
// unlike libm's.
inline float Exp(float x) {
  if (!(x > -87.3f)) return std::isnan(x) ? x : 0.0f;
  if (x > 88.7f) return INFINITY;
  // The nearest whole number: below 2^22 the sum has no digits behind the point.
  constexpr float kWhole = 12582912.0f;  // 1.5 * 2^23
  const float n = (x * 1.44269504f + kWhole) - kWhole;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // Two steps, because 2^n alone may lie outside the normal range at the ends.
  const int half = static_cast<int>(n) / 2, rest = static_cast<int>(n) - half;
  return p * std::bit_cast<float>(static_cast<uint32_t>(half + 127) << 23) *
         std::bit_cast<float>(static_cast<uint32_t>(rest + 127) << 23);
}

inline float Tanh(float x) {
  const float e = Exp(2.0f * std::fabs(x));
  const float t = 1.0f - 2.0f / (e + 1.0f);
  return x < 0 ? -t : t;
}

inline float GeluTanh(float x) {
  const float inner = 0.79788456f * (x + 0.044715f * x * x * x);
  return 0.5f * x * (1.0f + Tanh(inner));
}

// Row `row` of a [T,N] tensor as floats: in place for f32, through `scratch` for bf16.
inline const float* ReadRow(const Tensor& tensor, int64_t row, std::vector<float>& scratch) {
  const int64_t offset = row * tensor.row_stride;
  if (tensor.dtype == DType::kF32) return tensor.f32() + offset;
  const Bf16* source = tensor.bf16() + offset;
  scratch.resize(static_cast<size_t>(tensor.cols()));
  for (size_t i = 0; i < scratch.size(); ++i) scratch[i] = ToFloat(source[i]);
  return scratch.data();
}

// Stores one row, rounding if the tensor is bf16.
inline void WriteRow(Tensor tensor, int64_t row, const float* values, int64_t count) {
  const int64_t offset = row * tensor.row_stride;
  if (tensor.dtype == DType::kF32) {
    float* target = tensor.f32() + offset;
    if (target != values) std::memcpy(target, values, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  Bf16* target = tensor.bf16() + offset;
  for (int64_t i = 0; i < count; ++i) target[i] = ToBf16(values[i]);
}

// A small 1-D weight ([D], bf16 or f32) as floats.
inline std::vector<float> ToFloats(const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = tensor.dtype == DType::kF32 ? tensor.f32()[i] : ToFloat(tensor.bf16()[i]);
  return values;
}

}  // namespace lapidary::cpu

#endif  // LAPIDARY_OPS_CPU_VECTOR_H_
