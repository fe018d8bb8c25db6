// OpenGpuOps: the GPU that a command asks for, if there is one.
#ifndef LAPIDARY_OPS_GPU_OPS_H_
#define LAPIDARY_OPS_GPU_OPS_H_

#include <cstdint>
#include <memory>

#include "ops/ceilings.h"
#include "ops/ops.h"

namespace lapidary {

enum class BackendKind : uint8_t { kAuto, kCpu, kCuda };

bool HasCudaBackend();  // of this build

// Null: the CPU is to be used. kAuto takes the first GPU if it can be used, else the CPU, and logs
// why. Throws StartupError in one sentence when a GPU is asked for and cannot be used.
std::shared_ptr<Ops> OpenGpuOps(BackendKind kind);

// Of ops that OpenGpuOps gave. Takes 8 GiB meanwhile.
Ceilings MeasureGpuCeilings(Ops& gpu);

}  // namespace lapidary

#endif  // LAPIDARY_OPS_GPU_OPS_H_
