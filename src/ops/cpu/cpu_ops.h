// The CPU backend of Ops: the definition every kernel is compared with. Each output element depends
// on its own row only, by a fixed order of operations, so a row alone and a row in a batch are
// bit-equal.
#ifndef LAPIDARY_OPS_CPU_CPU_OPS_H_
#define LAPIDARY_OPS_CPU_CPU_OPS_H_

#include <memory>

#include "ops/ops.h"

namespace lapidary {

// num_threads 0: all cores. One thread may use it at a time.
std::unique_ptr<Ops> MakeCpuOps(int num_threads);

}  // namespace lapidary

#endif  // LAPIDARY_OPS_CPU_CPU_OPS_H_
