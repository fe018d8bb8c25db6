// Dummy numbers, four pairs of elements at a time, in the vectors that every x86-64 has.
#include <algorithm>
#include <cstring>

#include "ops/cpu/cpu_backend.h"

namespace lapidary::cpu {
namespace {

using U32x4 = uint32_t __attribute__((vector_size(16)));
using I32x4 = int32_t __attribute__((vector_size(16)));
using F32x4 = float __attribute__((vector_size(16)));

U32x4 Draw(U32x4 pair, uint32_t key_low, uint32_t key_high) {
  U32x4 x = pair + key_low;
  x = (x ^ (x >> 16)) * 0x21f0aaadu;
  x = (x ^ (x >> 15) ^ key_high) * 0x735a2d97u;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// 16 uniform bits to the bits of an f32 that are rounded to bf16 in its upper half.
U32x4 Rounded(U32x4 lane, const DummyRule& rule) {
  const F32x4 uniform = __builtin_convertvector(reinterpret_cast<I32x4>(lane), F32x4) - 32767.5f;
  const U32x4 bits = reinterpret_cast<U32x4>(uniform * rule.step + rule.centre);
  return bits + 0x7fffu + ((bits >> 16) & 1u);
}

// Elements i to i + 7, i a multiple of eight.
U32x4 EightElements(int64_t i, const DummyRule& rule) {
  const auto pair = static_cast<uint64_t>(i / 2);
  const U32x4 lanes = {0, 1, 2, 3};
  const U32x4 draw =
      Draw(lanes + static_cast<uint32_t>(pair), static_cast<uint32_t>(rule.key),
           static_cast<uint32_t>(rule.key >> 32) ^ static_cast<uint32_t>(pair >> 32));
  return (Rounded(draw & 0xffffu, rule) >> 16) | (Rounded(draw >> 16, rule) & 0xffff0000u);
}

}  // namespace

void CpuBackend::FillDummy(Tensor out, const DummyRule& rule) {
  constexpr int64_t kGrain = 1 << 17;  // eights
  const int64_t count = out.num_elements(), whole = count / 8;
  Bf16* const to = out.bf16();
  pool_.ParallelFor(whole, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const U32x4 elements = EightElements(8 * i, rule);
      std::memcpy(to + 8 * i, &elements, sizeof(elements));
    }
  });
  if (whole * 8 == count) return;
  const U32x4 last = EightElements(whole * 8, rule);
  std::memcpy(to + whole * 8, &last, static_cast<size_t>(count - whole * 8) * sizeof(Bf16));
}

}  // namespace lapidary::cpu
