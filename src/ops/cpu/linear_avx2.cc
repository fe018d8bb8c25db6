#include <immintrin.h>

#include <cstdint>

#include "ops/cpu/linear_params.h"

namespace lapidary::cpu {
namespace {

struct V16 {
  __m256 low, high;
};

inline V16 ZeroLanes() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline V16 LoadFloats(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline __m256 WidenBf16(const uint16_t* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline V16 LoadBf16(const uint16_t* p) { return {WidenBf16(p), WidenBf16(p + 8)}; }
inline V16 Fma(const V16& a, const V16& b, const V16& c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline void StoreLanes(float* p, const V16& v) {
  _mm256_storeu_ps(p, v.low);
  _mm256_storeu_ps(p + 8, v.high);
}
inline float SumLanes(const V16& v) {
  const __m256 eight = _mm256_add_ps(v.low, v.high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

#include "ops/cpu/linear_tiles.h"

}  // namespace

void LinearAvx2(const LinearParams& params, int64_t n_begin, int64_t n_end) {
  LinearTiled<2, 2, 4>(params, n_begin, n_end);
}

}  // namespace lapidary::cpu
