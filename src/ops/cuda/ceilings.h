// What a GPU can do in this moment, and the clock that kernels are measured by.
#ifndef LAPIDARY_OPS_CUDA_CEILINGS_H_
#define LAPIDARY_OPS_CUDA_CEILINGS_H_

#include <functional>

#include "device/cuda.h"
#include "ops/ceilings.h"

namespace lapidary {

// Seconds of one of `launches` launches in a graph, the median of 5.
double MedianSeconds(CudaDevice& device, int launches, const std::function<void(int)>& launch);

// A 4 GiB read and copy, and an 8192^3 product of random bf16 numbers. Takes 8 GiB meanwhile.
Ceilings MeasureCeilings(CudaDevice& device);

}  // namespace lapidary

#endif  // LAPIDARY_OPS_CUDA_CEILINGS_H_
