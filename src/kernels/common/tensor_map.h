// TensorMap: what TMA needs to know of a tensor, without CUDA's headers. Lives in a kernel's
// params.
#ifndef LAPIDARY_KERNELS_COMMON_TENSOR_MAP_H_
#define LAPIDARY_KERNELS_COMMON_TENSOR_MAP_H_

#include <array>
#include <cstdint>

namespace lapidary::kernels {

struct alignas(64) TensorMap {
  uint64_t words[16] = {};
};

// A bf16 tensor of up to five dimensions, innermost first, fetched in boxes with the 128-byte
// swizzle; the innermost box dimension is 64 elements. strides[i] are the bytes between neighbours
// of dimension i + 1. Elements outside the tensor read as zero.
struct TensorMapSpec {
  const void* base = nullptr;
  int rank = 2;
  std::array<uint64_t, 5> dims{};
  std::array<uint64_t, 4> strides{};
  std::array<uint32_t, 5> box{};
};
// Calls the driver: at start-up only.
TensorMap MakeTensorMap(const TensorMapSpec& spec);

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_COMMON_TENSOR_MAP_H_
