#include "ops/cuda/ceilings.h"

#include <limits>

#include "kernels/common/probe.h"
#include "kernels/gemm/cublaslt.h"
#include "ops/cases/op_case.h"
#include "ops/timing.h"

namespace lapidary {
Ceilings MeasureCeilings(CudaDevice& device) {
  Ceilings ceilings;
  const int64_t bytes = int64_t{4} << 30;
  const DeviceMemory in(device, bytes), out(device, bytes), sink(device, 256);
  device.Fill(in.data(), 0x3c, bytes);
  kernels::ProbeParams probe;
  probe.in = in.data();
  probe.sink = static_cast<unsigned*>(sink.data());
  probe.bytes = bytes;
  const double total = static_cast<double>(bytes);
  ceilings.read_gb_per_s =
      total / MedianSeconds(device, 4, [&](int) { kernels::LaunchProbe(probe, device.stream()); }) *
      1e-9;
  probe.out = out.data();
  ceilings.copy_gb_per_s =
      2 * total /
      MedianSeconds(device, 4, [&](int) { kernels::LaunchProbe(probe, device.stream()); }) * 1e-9;

  constexpr int kSize = 8192;
  Device& host = HostDevice();
  TensorSet values(host);
  const int index = values.Normal(kSize, kSize, 1.0);
  const auto on_device = values.CopyTo(device);
  kernels::CublasLt blas;
  kernels::GemmParams gemm;
  gemm.in = gemm.weight = (*on_device)[index].bf16();
  gemm.out = out.data();
  gemm.in_stride = gemm.weight_stride = gemm.out_stride = kSize;
  gemm.num_rows = gemm.n = gemm.k = kSize;
  double seconds = std::numeric_limits<double>::infinity();
  for (const kernels::GemmAlgorithm& algorithm : blas.Suggested(gemm, 8))
    if (blas.Use(gemm, algorithm))
      seconds = std::min(seconds,
                         MedianSeconds(device, 10, [&](int) { blas.Gemm(gemm, device.stream()); }));
  ceilings.tflop_per_s = 2.0 * kSize * kSize * kSize / seconds * 1e-12;
  return ceilings;
}

}  // namespace lapidary
