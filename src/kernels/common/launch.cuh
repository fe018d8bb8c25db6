// Launching: every kernel takes one params struct and may start while its predecessor in the stream
// still runs (programmatic dependent launch), so every kernel calls GridDependencyWait() before it
// touches memory another kernel writes.
#ifndef LAPIDARY_KERNELS_COMMON_LAUNCH_CUH_
#define LAPIDARY_KERNELS_COMMON_LAUNCH_CUH_

#include <cuda_runtime.h>

#include "kernels/common/launch.h"

namespace lapidary::kernels {

struct LaunchShape {
  dim3 grid, block;
  unsigned shared_bytes = 0;
  unsigned cluster = 1;  // CTAs of a cluster along x
};

template <typename Params>
void Launch(const char* name, void (*kernel)(Params), const LaunchShape& shape, Stream stream,
            const Params& params) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  if (shape.shared_bytes > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes));
    if (error != cudaSuccess) LaunchFailed(name, error);
  }
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = shape.cluster;
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = shape.cluster > 1 ? 2 : 1;
  if (launch_observer != nullptr) launch_observer(reinterpret_cast<const void*>(kernel));
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, params);
  if (error != cudaSuccess) LaunchFailed(name, error);
}

// How many clusters of so many blocks, without dynamic shared memory, run beside one another.
template <typename Params>
int NumClusters(void (*kernel)(Params), unsigned threads, unsigned cluster) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = cluster;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = cluster;
  config.blockDim = threads;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  const cudaError_t error = cudaOccupancyMaxActiveClusters(&clusters, kernel, &config);
  if (error != cudaSuccess || clusters == 0) LaunchFailed("NumClusters", error);
  return clusters;
}

inline void Require(bool holds, const char* kernel, const char* what, long long value) {
  if (!holds) ShapeRefused(kernel, what, value);
}

inline bool Aligned16(const void* pointer) {
  return reinterpret_cast<unsigned long long>(pointer) % 16 == 0;
}

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_COMMON_LAUNCH_CUH_
