// The numbers of dummy weights: each element is a function of its tensor's name and its own index,
// so that every backend makes the same bits, in any order and by any number of threads. 32-bit
// integer arithmetic and two f32 roundings: a kernel makes them as they are stored.
//
// Element i of a tensor [.., n] is one half of the draw of its pair p = i / 2. With key = FNV-1a
// (64 bits) of the published name, k0 its low and k1 its high 32 bits, all arithmetic modulo 2^32:
//   x = low32(p) + k0
//   x = (x ^ x >> 16) * 0x21f0aaad
//   x = (x ^ x >> 15 ^ k1 ^ high32(p)) * 0x735a2d97
//   x = (x ^ x >> 15) * 0x846ca68b
//   x = x ^ x >> 16
//   u = i even ? x & 0xffff : x >> 16
//   value = bf16(f32(f32(u - 32767.5) * step) + centre)    product and sum each rounded to f32, the
//                                                          sum rounded to bf16, ties to even; no
//                                                          fma
// token_ordering (int64) is the permutation i * f mod n, f the first number >= 5n/8 prime to n.
#ifndef LAPIDARY_MODEL_DUMMY_H_
#define LAPIDARY_MODEL_DUMMY_H_

#include <cstdint>

#include "model/tensor_spec.h"

namespace lapidary {

// The elements are uniform on centre +- 32767.5 * step.
struct DummyRule {
  uint64_t key = 0;
  float centre = 0, step = 0;
};

// Keeps a forward pass well conditioned: linears preserve the size of what they read, norms are
// about 1, attention scores have a deviation of about 2 at every head size, logits of about 4.
DummyRule DummyRuleOf(const TensorSpec& spec);

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_DUMMY_H_
