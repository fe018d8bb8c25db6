// What the machine can do: the ceilings that every figure of the bench is a share of.
#ifndef LAPIDARY_KERNELS_COMMON_PROBE_H_
#define LAPIDARY_KERNELS_COMMON_PROBE_H_

#include <cstdint>

#include "kernels/common/launch.h"

namespace lapidary::kernels {

struct ProbeParams {
  const void* in = nullptr;
  void* out = nullptr;  // null: only read; then `sink` gets a word now and then
  unsigned* sink = nullptr;
  int64_t bytes = 0;
};
// Reads `in` once, 16 bytes a thread at a time; with `out`, copies it there.
void LaunchProbe(const ProbeParams& params, Stream stream);

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_COMMON_PROBE_H_
