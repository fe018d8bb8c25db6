// The CUDA device: one GPU, one stream. Sources that include this build only with LAPIDARY_CUDA.
#ifndef LAPIDARY_DEVICE_CUDA_H_
#define LAPIDARY_DEVICE_CUDA_H_

#include "device/device.h"

struct CUstream_st;

namespace lapidary {

class CudaDevice : public Device {
 public:
  virtual CUstream_st* stream() const = 0;
};

// GPUs that the driver shows; 0 without a driver.
int NumCudaDevices();
// Throws StartupError in one sentence when there is no such GPU or it is not a Hopper (sm_90).
std::unique_ptr<CudaDevice> OpenCudaDevice(int ordinal);

}  // namespace lapidary

#endif  // LAPIDARY_DEVICE_CUDA_H_
