#include "app/bench/device/growth.h"

#include <algorithm>

namespace lapidary {
namespace {

constexpr double kLeastGrowth = 0.25;  // of the first time: less is lost in what else grows

// The first point of the line to `to` along which the other size is the same; `to` if it is that.
const StepPoint& FirstOf(std::span<const StepPoint> points, const StepPoint& to,
                         int StepPoint::* along, int StepPoint::* fixed) {
  const StepPoint* first = &to;
  for (const StepPoint& point : points)
    if (point.*fixed == to.*fixed && point.*along < first->*along) first = &point;
  return *first;
}

}  // namespace

Growth GrowthOf(std::span<const StepPoint> points) {
  Growth growth;
  const auto look = [&](const StepPoint& from, const StepPoint& to) {
    const double bound_grew = to.bound_ms - from.bound_ms, excess = to.ms / (from.ms + bound_grew);
    if (bound_grew >= kLeastGrowth * from.ms)
      growth.slope = std::max(growth.slope, (to.ms - from.ms) / bound_grew);
    if (excess <= growth.excess) return;
    growth.excess = excess;
    growth.at = to;
    growth.from = from;
  };
  for (const StepPoint& point : points) {
    look(FirstOf(points, point, &StepPoint::batch, &StepPoint::context), point);
    look(FirstOf(points, point, &StepPoint::context, &StepPoint::batch), point);
  }
  return growth;
}

}  // namespace lapidary
