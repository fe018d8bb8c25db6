// What a GPU can do in this moment.
#ifndef LAPIDARY_OPS_CUDA_CEILINGS_H_
#define LAPIDARY_OPS_CUDA_CEILINGS_H_

#include "device/cuda.h"
#include "ops/ceilings.h"

namespace lapidary {

// A 4 GiB read and copy, and an 8192^3 product of random bf16 numbers. Takes 8 GiB meanwhile.
Ceilings MeasureCeilings(CudaDevice& device);

}  // namespace lapidary

#endif  // LAPIDARY_OPS_CUDA_CEILINGS_H_
