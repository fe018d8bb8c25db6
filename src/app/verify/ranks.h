// Places of values in a row of logits, f32 or bf16.
#ifndef LAPIDARY_APP_VERIFY_RANKS_H_
#define LAPIDARY_APP_VERIFY_RANKS_H_

#include <algorithm>
#include <cstdint>

#include "base/bf16.h"

namespace lapidary {

inline float Value(float x) { return x; }
inline float Value(Bf16 x) { return ToFloat(x); }

// Where the largest is, the first of equal ones.
template <typename T>
int64_t BestOf(const T* row, int64_t count) {
  return std::max_element(row, row + count, [](T a, T b) { return Value(a) < Value(b); }) - row;
}

// How many are larger than the one at `at`.
template <typename T>
int64_t RankOf(const T* row, int64_t count, int64_t at) {
  return std::count_if(row, row + count, [&](T x) { return Value(x) > Value(row[at]); });
}

}  // namespace lapidary

#endif  // LAPIDARY_APP_VERIFY_RANKS_H_
