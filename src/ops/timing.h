// The clock that ops are measured by: the device's own, around a graph of launches.
#ifndef LAPIDARY_OPS_TIMING_H_
#define LAPIDARY_OPS_TIMING_H_

#include <functional>
#include <span>

#include "ops/ops.h"

namespace lapidary {

// Seconds of one of `launches` launches in a graph, the median of 5. On a CPU fewer of work that
// takes long.
double MedianSeconds(Device& device, int launches, const std::function<void(int)>& launch);

// The same of drawing what `queries` ask, from each of the logits [O,V] f32 in turn; on a GPU the
// kernels alone, without what goes in and comes out.
double MedianDrawSeconds(Ops& ops, int launches, std::span<const Tensor> logits,
                         std::span<const RowQuery> queries);

// What these ops leave out from now on, so that the rest of a step can be timed: what the calls
// would have written stays as it is. On a GPU only.
struct LeftOut {
  bool products = false;  // dense ones: Linear and what is fused from it
  bool experts = false;   // the experts' products
};
void LeaveOut(Ops& ops, const LeftOut& what);

}  // namespace lapidary

#endif  // LAPIDARY_OPS_TIMING_H_
