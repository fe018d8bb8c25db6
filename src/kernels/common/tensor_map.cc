#include "kernels/common/tensor_map.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <bit>

#include "base/check.h"

namespace lapidary::kernels {
namespace {

using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*,
                                 const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                                 const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                                 CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

EncodeTiled Encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                             12000, cudaEnableDefault, &found);
  CHECK(error == cudaSuccess && found == cudaDriverEntryPointSuccess, "cuTensorMapEncodeTiled: {}",
        cudaGetErrorString(error));
  return reinterpret_cast<EncodeTiled>(function);
}

}  // namespace

static_assert(sizeof(TensorMap) == sizeof(CUtensorMap));

TensorMap MakeTensorMap(const TensorMapSpec& spec) {
  static const EncodeTiled encode = Encoder();
  CHECK(spec.box[0] == 64, "box of {} columns, 64 fill a swizzled row", spec.box[0]);
  CUtensorMap map;
  const cuuint32_t element_strides[5] = {1, 1, 1, 1, 1};
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(spec.rank),
             const_cast<void*>(spec.base), spec.dims.data(), spec.strides.data(), spec.box.data(),
             element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  CHECK(result == CUDA_SUCCESS, "tensor map of [{},{},{}] at {}: error {}", spec.dims[0],
        spec.dims[1], spec.dims[2], spec.base, static_cast<int>(result));
  return std::bit_cast<TensorMap>(map);
}

}  // namespace lapidary::kernels
