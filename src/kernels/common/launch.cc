#include "kernels/common/launch.h"

#include <cuda_runtime_api.h>

#include "base/check.h"

namespace lapidary::kernels {

void LaunchFailed(const char* kernel, int error) {
  DeviceFailed(
      fmt::format("launch of {}: {}", kernel, cudaGetErrorString(static_cast<cudaError_t>(error))));
}

void ShapeRefused(const char* kernel, const char* what, long long value) {
  CHECK(false, "{} does not take {} {}", kernel, what, value);
  __builtin_unreachable();
}

LaunchObserver launch_observer = nullptr;

int NumSms() {
  static const int num_sms = [] {
    int device = 0, value = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device);
    return value;
  }();
  return num_sms;
}

}  // namespace lapidary::kernels
