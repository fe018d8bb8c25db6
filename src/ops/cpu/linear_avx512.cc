#include <immintrin.h>

#include <cstdint>

#include "ops/cpu/linear_params.h"

namespace lapidary::cpu {
namespace {

using Vec = __m512;
constexpr int kVecLanes = 16;

inline Vec ZeroLanes() { return _mm512_setzero_ps(); }
inline Vec LoadFloats(const float* p) { return _mm512_loadu_ps(p); }
// The masked forms with a full mask: g++ 12 warns inside its own unmasked ones, and folds the mask.
inline Vec LoadBf16(const uint16_t* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m512i words = _mm512_maskz_cvtepu16_epi32(0xffff, bits);
  return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, words, 16));
}
inline Vec Fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline void StoreFloats(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline float SumLanes(const Vec (&parts)[1]) {
  const Vec v = parts[0];
  const __m256 eight = _mm256_add_ps(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                                     __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

#include "ops/cpu/linear_tiles.h"

}  // namespace

void LinearAvx512(const LinearParams& params, int64_t n_begin, int64_t n_end) {
  LinearTiled<5, 8>(params, n_begin, n_end);
}

}  // namespace lapidary::cpu
