// Growth: how a step's time grows with batch and context beside its bound.
#ifndef LAPIDARY_APP_BENCH_DEVICE_GROWTH_H_
#define LAPIDARY_APP_BENCH_DEVICE_GROWTH_H_

#include <span>

namespace lapidary {

// A decode step of so many sequences, one row each, that see so many keys each.
struct StepPoint {
  int batch = 0, context = 0;
  double ms = 0, bound_ms = 0;
};

// Along every line of points with equal batch or equal context: its first point's time and what the
// bound has grown by since are what a step that grows as its bound does would take.
struct Growth {
  double excess = 1;  // the most that a step takes of that, as a factor
  StepPoint at, from;
  // The most that time grew of what the bound grew by, where that is a quarter of the first time.
  double slope = 0;
};
Growth GrowthOf(std::span<const StepPoint> points);

}  // namespace lapidary

#endif  // LAPIDARY_APP_BENCH_DEVICE_GROWTH_H_
