// Checked 64-bit arithmetic for numbers that come from a file or a request.
#ifndef LAPIDARY_BASE_CHECKED_H_
#define LAPIDARY_BASE_CHECKED_H_

#include <cstdint>
#include <optional>

namespace lapidary {

inline std::optional<int64_t> CheckedAdd(int64_t a, int64_t b) {
  int64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

inline std::optional<int64_t> CheckedMul(int64_t a, int64_t b) {
  int64_t product;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

}  // namespace lapidary

#endif  // LAPIDARY_BASE_CHECKED_H_
