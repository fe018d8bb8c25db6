// Tensor: a view of row-major numbers somewhere in memory. Owns nothing, copies freely.
#ifndef LAPIDARY_DEVICE_TENSOR_H_
#define LAPIDARY_DEVICE_TENSOR_H_

#include <array>
#include <cstdint>
#include <vector>

#include "base/bf16.h"
#include "base/check.h"

namespace lapidary {

enum class DType : uint8_t { kF32, kBf16, kI32, kI64 };

inline int64_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kBf16:
      return 2;
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
  }
  CHECK(false, "dtype {}", static_cast<int>(dtype));
  return 0;
}

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  std::array<int64_t, 4> shape{};  // shape[0..rank), the rest is unused
  int64_t row_stride = 0;          // elements between rows of the first dimension

  int64_t rows() const { return shape[0]; }
  // Elements of one row of the first dimension.
  int64_t cols() const {
    int64_t product = 1;
    for (int i = 1; i < rank; ++i) product *= shape[static_cast<size_t>(i)];
    return product;
  }
  int64_t num_elements() const { return rank == 0 ? 0 : rows() * cols(); }
  bool empty() const { return data == nullptr; }

  const float* f32() const { return static_cast<const float*>(Typed(DType::kF32)); }
  float* f32() { return static_cast<float*>(Typed(DType::kF32)); }
  const Bf16* bf16() const { return static_cast<const Bf16*>(Typed(DType::kBf16)); }
  Bf16* bf16() { return static_cast<Bf16*>(Typed(DType::kBf16)); }
  const int32_t* i32() const { return static_cast<const int32_t*>(Typed(DType::kI32)); }
  int32_t* i32() { return static_cast<int32_t*>(Typed(DType::kI32)); }
  const int64_t* i64() const { return static_cast<const int64_t*>(Typed(DType::kI64)); }

  // Rows [begin, begin + count) as a view.
  Tensor Rows(int64_t begin, int64_t count) const {
    CHECK(begin >= 0 && count >= 0 && begin + count <= rows(), "rows {}+{} of {}", begin, count,
          rows());
    Tensor view = *this;
    view.data = static_cast<char*>(data) + begin * row_stride * SizeOf(dtype);
    view.shape[0] = count;
    return view;
  }
  // Columns [begin, begin + count) of a [rows, cols] view.
  Tensor Cols(int64_t begin, int64_t count) const {
    CHECK(rank == 2 && begin >= 0 && count >= 0 && begin + count <= cols(), "columns {}+{} of {}",
          begin, count, cols());
    Tensor view = *this;
    view.data = static_cast<char*>(data) + begin * SizeOf(dtype);
    view.shape[1] = count;
    return view;
  }

 private:
  void* Typed(DType wanted) const {
    CHECK(dtype == wanted, "tensor has dtype {}, wanted {}", static_cast<int>(dtype),
          static_cast<int>(wanted));
    return data;
  }
};

// Contiguous tensors over memory the caller owns.
inline Tensor MakeTensor(void* data, DType dtype, int64_t rows) {
  return {data, dtype, 1, {rows, 0, 0, 0}, 1};
}
inline Tensor MakeTensor(void* data, DType dtype, int64_t rows, int64_t cols) {
  return {data, dtype, 2, {rows, cols, 0, 0}, cols};
}
// All of `values`, which outlives the view.
inline Tensor ViewOf(std::vector<int32_t>& values) {
  return MakeTensor(values.data(), DType::kI32, static_cast<int64_t>(values.size()));
}

}  // namespace lapidary

#endif  // LAPIDARY_DEVICE_TENSOR_H_
