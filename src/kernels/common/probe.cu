#include "kernels/common/probe.h"

#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"

namespace lapidary::kernels {
namespace {

constexpr int kThreads = 512, kAhead = 8;

__global__ void __launch_bounds__(kThreads) ProbeKernel(const __grid_constant__ ProbeParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const int64_t count = p.bytes / 16, step = int64_t{gridDim.x} * kThreads;
  const uint4* in = static_cast<const uint4*>(p.in);
  uint4* out = static_cast<uint4*>(p.out);
  unsigned sum = 0;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step * kAhead) {
    uint4 v[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j)
      v[j] = i + j * step < count ? LoadStreaming(in + i + j * step) : make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      if (out != nullptr && i + j * step < count) out[i + j * step] = v[j];
      sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
    }
  }
  // Never true for the data of the bench, but the compiler cannot know and keeps the loads.
  if (sum == 0x9e3779b9u) *p.sink = sum;
}

}  // namespace

void LaunchProbe(const ProbeParams& p, Stream stream) {
  Require(p.bytes % 16 == 0 && Aligned16(p.in) && Aligned16(p.out), "Probe", "bytes", p.bytes);
  Launch("Probe", ProbeKernel, {static_cast<unsigned>(NumSms() * 4), kThreads}, stream, p);
}

}  // namespace lapidary::kernels
