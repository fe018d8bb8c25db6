// Kernels, copies and fills of the GPU in the process's Trace, by CUPTI, which is opened at the
// first trace; and NVTX ranges for the spans of threads. Sources that include this build only with
// LAPIDARY_CUDA.
#ifndef LAPIDARY_DEVICE_CUDA_TRACE_H_
#define LAPIDARY_DEVICE_CUDA_TRACE_H_

namespace lapidary {

// Once for the process; later calls do nothing. A trace without libcupti is said in the log and has
// no spans of the device.
void AddCudaTrace();

}  // namespace lapidary

#endif  // LAPIDARY_DEVICE_CUDA_TRACE_H_
