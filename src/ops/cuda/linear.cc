#include <algorithm>

#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/swap_gemm.h"
#include "ops/cuda/cuda_backend.h"

namespace lapidary::cuda {
namespace {

enum MapUse { kWeightMap = 32, kInputMap };

}  // namespace

// The own kernel where it was measured to be faster than the library: few rows, and weights that
// the library cannot keep the machine busy with. What it sums for a row has one order whatever the
// rows beside it, which the library does not promise.
void CudaBackend::Gemm(const kernels::GemmParams& p) {
  constexpr int kOwnRows = 32;
  constexpr int64_t kLargeWeightBytes = int64_t{120} << 20;
  const bool can = p.n % 4 == 0 && p.k % 8 == 0 && p.out_stride % 4 == 0 && p.in_stride % 8 == 0 &&
                   p.weight_stride % 8 == 0;
  if (batch_invariant_) {
    CHECK(can, "a product of [{},{}] with rows {} apart is not batch-invariant", p.n, p.k,
          p.in_stride);
    kernels::GemmParams part = p;
    for (int row = 0; row < p.num_rows; row += kernels::kMaxSwapRows) {
      part.in = p.in + row * p.in_stride;
      part.out = static_cast<char*>(p.out) + row * p.out_stride * (p.out_f32 ? 4 : 2);
      part.num_rows = std::min(kernels::kMaxSwapRows, p.num_rows - row);
      SwapGemm(part);
    }
    return;
  }
  if (can && p.num_rows <= kOwnRows && int64_t{p.n} * p.k * 2 <= kLargeWeightBytes)
    SwapGemm(p);
  else
    blas_.Gemm(p, stream());
}

void CudaBackend::SwapGemm(const kernels::GemmParams& p) {
  kernels::SwapGemmParams params;
  params.weight_map = Map({kWeightMap, p.weight, p.n, p.k, p.weight_stride}, [&] {
    return kernels::MakeWeightMap(p.weight, p.n, p.k, p.weight_stride);
  });
  const int tile = kernels::SwapTile(p.num_rows);
  params.in_map = Map({kInputMap + tile, p.in, p.num_rows, p.k, p.in_stride}, [&] {
    return kernels::MakeInputMap(p.in, p.num_rows, p.k, p.in_stride, tile);
  });
  params.in_box_rows = tile;
  params.num_rows = p.num_rows;
  params.n = p.n;
  params.k = p.k;
  params.out = p.out;
  params.out_stride = p.out_stride;
  params.out_f32 = p.out_f32;
  params.splits = batch_invariant_ ? kernels::InvariantSplits(p.k) : kernels::SwapSplits(p.n, p.k);
  kernels::LaunchSwapGemm(params, stream());
}

// Blocks that lie behind one another in memory are one product.
void CudaBackend::Linear(Tensor out, Tensor in, const LinearWeight& weight) {
  CHECK(in.cols() == weight.cols() && out.cols() == weight.rows() && out.rows() == in.rows(),
        "[{},{}] = [{},{}] x [{},{}]", out.rows(), out.cols(), in.rows(), in.cols(), weight.rows(),
        weight.cols());
  if (in.rows() == 0) return;
  Tensor x = in;
  if (in.dtype == DType::kF32) {
    x = MakeTensor(Scratch(in.rows() * in.cols() * 2), DType::kBf16, in.rows(), in.cols());
    kernels::RoundRowsParams round;
    round.in = in.f32();
    round.out = x.bf16();
    round.in_stride = in.row_stride;
    round.out_stride = x.row_stride;
    round.num_rows = static_cast<int>(in.rows());
    round.num_cols = static_cast<int>(in.cols());
    kernels::LaunchRoundRows(round, stream());
  }
  int64_t column = 0;
  for (int b = 0; b < weight.num_blocks;) {
    const Tensor& first = weight.blocks[static_cast<size_t>(b)];
    int64_t rows = 0;
    do {
      rows += weight.blocks[static_cast<size_t>(b++)].rows();
    } while (b < weight.num_blocks &&
             weight.blocks[static_cast<size_t>(b)].row_stride == first.row_stride &&
             weight.blocks[static_cast<size_t>(b)].bf16() ==
                 first.bf16() + rows * first.row_stride);
    kernels::GemmParams params;
    params.in = x.bf16();
    params.weight = first.bf16();
    params.out = out.Cols(column, rows).data;
    params.out_f32 = out.dtype == DType::kF32;
    params.in_stride = x.row_stride;
    params.weight_stride = first.row_stride;
    params.out_stride = out.row_stride;
    params.num_rows = static_cast<int>(in.rows());
    params.n = static_cast<int>(rows);
    params.k = static_cast<int>(in.cols());
    Gemm(params);
    column += rows;
  }
}

}  // namespace lapidary::cuda
