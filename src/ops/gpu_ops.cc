#include "ops/gpu_ops.h"

#include "base/check.h"
#include "base/log.h"
#include "base/result.h"

#ifdef LAPIDARY_CUDA
#include "device/cuda.h"
#include "ops/cuda/ceilings.h"
#include "ops/cuda/cuda_ops.h"
#endif

namespace lapidary {
namespace {

#ifdef LAPIDARY_CUDA
std::shared_ptr<Ops> Open() {
  std::unique_ptr<CudaDevice> device = OpenCudaDevice(0);
  LogInfo(
      "backend cuda: {}, {:.1f} GiB; attention, norms, experts, router and products of few rows by "
      "own kernels, other products by cuBLASLt",
      device->name(), static_cast<double>(device->total_bytes()) / (1 << 30));
  return MakeCudaOps(std::move(device));
}
Ceilings Measure(Ops& gpu) { return MeasureCeilings(static_cast<CudaDevice&>(gpu.device())); }
bool HasGpu() { return NumCudaDevices() > 0; }
constexpr bool kHasCuda = true;
#else
std::shared_ptr<Ops> Open() {
  throw StartupError(
      "this build has no CUDA backend: build it with preset cuda or use --backend cpu");
}
Ceilings Measure(Ops&) {
  CHECK(false, "this build opens no GPU");
  return {};
}
bool HasGpu() { return false; }
constexpr bool kHasCuda = false;
#endif

}  // namespace

bool HasCudaBackend() { return kHasCuda; }

Ceilings MeasureGpuCeilings(Ops& gpu) { return Measure(gpu); }

std::shared_ptr<Ops> OpenGpuOps(BackendKind kind) {
  if (kind == BackendKind::kCuda) return Open();
  if (kind == BackendKind::kCpu || !HasGpu()) return nullptr;
  try {
    return Open();
  } catch (const StartupError& error) {
    LogWarning("backend cpu: {}", error.what());
    return nullptr;
  }
}

}  // namespace lapidary
