// What every measurement needs: a clock around work, the middle of samples, and results that the
// compiler must not leave out.
#ifndef LAPIDARY_BASE_MEASURE_H_
#define LAPIDARY_BASE_MEASURE_H_

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

namespace lapidary {

// Of at least one value; the upper one of the middle two.
inline double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

template <typename Work>
double Seconds(Work&& work) {
  const auto start = std::chrono::steady_clock::now();
  std::forward<Work>(work)();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Keeps a result alive without a store that would count as memory traffic.
template <typename T>
void Keep(const T& value) {
  asm volatile("" : : "m"(value) : "memory");
}

}  // namespace lapidary

#endif  // LAPIDARY_BASE_MEASURE_H_
