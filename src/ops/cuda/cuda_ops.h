// The CUDA backend of Ops: bf16 activations and KV, f32 sums. Each op is one kernel, or one library
// product; fused.cc defines what the fused ones compute, and the op cases hold them to it. Rounds
// where ops.h says; tensors are in the device's memory.
#ifndef LAPIDARY_OPS_CUDA_CUDA_OPS_H_
#define LAPIDARY_OPS_CUDA_CUDA_OPS_H_

#include <memory>

#include "device/cuda.h"
#include "ops/ops.h"

namespace lapidary {

std::unique_ptr<Ops> MakeCudaOps(std::unique_ptr<CudaDevice> device);

}  // namespace lapidary

#endif  // LAPIDARY_OPS_CUDA_CUDA_OPS_H_
