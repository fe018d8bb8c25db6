#include <immintrin.h>

#include <cstdint>

#include "ops/cpu/linear_params.h"

namespace lapidary::cpu {
namespace {

using Vec = __m256;
constexpr int kVecLanes = 8;

inline Vec ZeroLanes() { return _mm256_setzero_ps(); }
inline Vec LoadFloats(const float* p) { return _mm256_loadu_ps(p); }
inline Vec LoadBf16(const uint16_t* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Vec Fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline void StoreFloats(float* p, Vec v) { _mm256_storeu_ps(p, v); }
inline float SumLanes(const Vec (&v)[2]) {
  const __m256 eight = _mm256_add_ps(v[0], v[1]);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

#include "ops/cpu/linear_tiles.h"

}  // namespace

void LinearAvx2(const LinearParams& params, int64_t n_begin, int64_t n_end) {
  LinearTiled<3, 4>(params, n_begin, n_end);
}

}  // namespace lapidary::cpu
