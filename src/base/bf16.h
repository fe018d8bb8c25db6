// bfloat16 as two bytes: conversion only, arithmetic is f32.
#ifndef LAPIDARY_BASE_BF16_H_
#define LAPIDARY_BASE_BF16_H_

#include <bit>
#include <cstdint>

namespace lapidary {

struct Bf16 {
  uint16_t bits;
};

inline float ToFloat(Bf16 value) { return std::bit_cast<float>(uint32_t{value.bits} << 16); }

// Rounds to nearest, ties to even; NaN stays NaN (quiet).
inline Bf16 ToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

inline float RoundToBf16(float value) { return ToFloat(ToBf16(value)); }

}  // namespace lapidary

#endif  // LAPIDARY_BASE_BF16_H_
