// The numbers of dummy weights: each element is a function of a key and its own index, so that
// every backend makes the same bits, in any order and by any number of threads. 32-bit integer
// arithmetic and two f32 roundings: a kernel makes them as they are stored.
//
// Element i of a tensor [.., n] is one half of the draw of its pair p = i / 2. With k0 the low and
// k1 the high 32 bits of the key, all arithmetic modulo 2^32:
//   x = low32(p) + k0
//   x = (x ^ x >> 16) * 0x21f0aaad
//   x = (x ^ x >> 15 ^ k1 ^ high32(p)) * 0x735a2d97
//   x = (x ^ x >> 15) * 0x846ca68b
//   x = x ^ x >> 16
//   u = i even ? x & 0xffff : x >> 16
//   value = bf16(f32(f32(u - 32767.5) * step) + centre)    product and sum each rounded to f32, the
//                                                          sum rounded to bf16, ties to even; no
//                                                          fma
#ifndef LAPIDARY_OPS_DUMMY_RULE_H_
#define LAPIDARY_OPS_DUMMY_RULE_H_

#include <cstdint>

namespace lapidary {

// The elements are uniform on centre +- 32767.5 * step.
struct DummyRule {
  uint64_t key = 0;
  float centre = 0, step = 0;
};

}  // namespace lapidary

#endif  // LAPIDARY_OPS_DUMMY_RULE_H_
