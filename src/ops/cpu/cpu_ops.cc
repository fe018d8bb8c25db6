#include "ops/cpu/cpu_ops.h"

#include <algorithm>
#include <thread>

#include "ops/cpu/cpu_backend.h"
#include "ops/cpu/linear.h"
#include "ops/cpu/vector.h"

namespace lapidary {

std::unique_ptr<Ops> MakeCpuOps(int num_threads) {
  if (num_threads == 0)
    num_threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 256);
  return std::make_unique<cpu::CpuBackend>(num_threads);
}

namespace cpu {

Tensor CpuBackend::AsF32(Tensor in, std::vector<float>& storage) {
  if (in.dtype == DType::kF32) return in;
  storage.resize(static_cast<size_t>(in.num_elements()));
  const Tensor out = MakeTensor(storage.data(), DType::kF32, in.rows(), in.cols());
  std::vector<float> row;
  for (int64_t t = 0; t < in.rows(); ++t) WriteRow(out, t, ReadRow(in, t, row), in.cols());
  return out;
}

void CpuBackend::Linear(Tensor out, Tensor in, const LinearWeight& weight) {
  CHECK(in.cols() == weight.cols() && out.cols() == weight.rows() && out.rows() == in.rows(),
        "[{},{}] = [{},{}] x [{},{}]", out.rows(), out.cols(), in.rows(), in.cols(), weight.rows(),
        weight.cols());
  const Tensor x = AsF32(in, linear_in_);
  Tensor y = out;
  if (out.dtype != DType::kF32) {
    linear_out_.resize(static_cast<size_t>(out.num_elements()));
    y = MakeTensor(linear_out_.data(), DType::kF32, out.rows(), out.cols());
  }
  int64_t column = 0;
  for (int b = 0; b < weight.num_blocks; ++b) {
    const Tensor& block = weight.blocks[static_cast<size_t>(b)];
    LinearParams params;
    params.x = x.f32();
    params.x_stride = x.row_stride;
    params.w = block.bf16();
    params.w_stride = block.row_stride;
    params.y = y.f32() + column;
    params.y_stride = y.row_stride;
    params.m = in.rows();
    params.n = block.rows();
    params.k = in.cols();
    cpu::Linear(params, pool_);
    column += block.rows();
  }
  if (out.dtype != DType::kF32)
    for (int64_t t = 0; t < out.rows(); ++t)
      WriteRow(out, t, y.f32() + t * y.row_stride, out.cols());
}

}  // namespace cpu
}  // namespace lapidary
