#include <algorithm>
#include <optional>

#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/swap_gemm.h"
#include "ops/cuda/cuda_backend.h"

namespace lapidary::cuda {
namespace {

// Those of weights are followed by the tile's rows, as are those of inputs.
enum MapUse { kWeightMap = 1 << 10, kGatesMap = 2 << 10, kInputMap = 3 << 10 };

// Whether the own kernel takes these widths; of rows it takes kMaxSwapRows at a time.
bool CanBeOwn(const kernels::GemmParams& p) {
  return p.n % 4 == 0 && p.k % 8 == 0 && p.out_stride % 4 == 0 && p.in_stride % 8 == 0 &&
         p.weight_stride % 8 == 0;
}

// For shapes that the table does not have, what is mostly true of those that it has: the own kernel
// for weights that the library cannot keep the machine busy with, and few rows, or weights that
// fill the machine without being split many times: what the splits of a cluster exchange grows with
// the rows.
bool PrefersOwn(const kernels::GemmParams& p) {
  constexpr int kFewRows = 32, kMaxSplits = 2;
  constexpr int64_t kLargeWeightBytes = int64_t{120} << 20;
  return int64_t{p.n} * p.k * 2 <= kLargeWeightBytes &&
         (p.num_rows <= kFewRows || kernels::SwapSplits(p.n, p.k) <= kMaxSplits);
}

// The one product that a weight is if its blocks lie behind one another.
std::optional<Tensor> Whole(const LinearWeight& weight) {
  Tensor whole = weight.blocks[0];
  for (int b = 1; b < weight.num_blocks; ++b) {
    const Tensor& block = weight.blocks[static_cast<size_t>(b)];
    if (block.row_stride != whole.row_stride ||
        block.bf16() != whole.bf16() + whole.rows() * whole.row_stride)
      return std::nullopt;
    whole.shape[0] += block.rows();
  }
  return whole;
}

kernels::GemmParams Product(Tensor out, Tensor in, Tensor weight) {
  kernels::GemmParams params;
  params.in = in.bf16();
  params.weight = weight.bf16();
  params.out = out.data;
  params.out_f32 = out.dtype == DType::kF32;
  params.in_stride = in.row_stride;
  params.weight_stride = weight.row_stride;
  params.out_stride = out.row_stride;
  params.num_rows = Int(in.rows());
  params.n = Int(weight.rows());
  params.k = Int(in.cols());
  return params;
}

}  // namespace

// One call of the own kernel. What it sums for a row has one order whatever the rows beside it,
// which the library does not promise.
bool CudaBackend::IsOwn(const kernels::GemmParams& p) const {
  if (!CanBeOwn(p) || p.num_rows > kernels::kMaxSwapRows) return false;
  if (batch_invariant_) return true;
  const kernels::GemmChoice* choice = blas_.Choice(p.n, p.k, p.num_rows);
  return choice != nullptr ? choice->is_own() : PrefersOwn(p);
}

kernels::SwapTiling CudaBackend::Tiling(const kernels::GemmParams& p) const {
  const int rows = kernels::SwapTile(p.num_rows);
  if (batch_invariant_) return {kernels::InvariantSplits(p.k), rows, kernels::kSwapWeightRows};
  const kernels::GemmChoice* choice = blas_.Choice(p.n, p.k, p.num_rows);
  if (choice != nullptr && choice->is_own()) return choice->own;
  // What is mostly true of the shapes that the table has.
  constexpr int kFewRows = 32, kFewColumns = 2048, kMaxSplitsOfHalf = 4;
  const int splits = kernels::SwapSplits(p.n, p.k);
  if (p.num_rows <= kFewRows || p.n >= kFewColumns) return {splits, rows, kernels::kSwapWeightRows};
  return {std::min(splits, kMaxSplitsOfHalf), rows, kernels::kSwapWeightRows / 2};
}

void CudaBackend::Gemm(const kernels::GemmParams& p) {
  if (left_out_.products) return;
  if (IsOwn(p)) {
    OwnGemm(p, {});
    return;
  }
  if (!batch_invariant_) {
    blas_.Gemm(p, stream());
    return;
  }
  CHECK(CanBeOwn(p), "a product of [{},{}] with rows {} apart is not batch-invariant", p.n, p.k,
        p.in_stride);
  kernels::GemmParams part = p;
  for (int row = 0; row < p.num_rows; row += kernels::kMaxSwapRows) {
    part.in = p.in + row * p.in_stride;
    part.out = static_cast<char*>(p.out) + row * p.out_stride * (p.out_f32 ? 4 : 2);
    part.num_rows = std::min(kernels::kMaxSwapRows, p.num_rows - row);
    OwnGemm(part, {});
  }
}

// `epilogue` has the fields of the product's end; weights of gates and ups are fetched together.
void CudaBackend::OwnGemm(const kernels::GemmParams& p, const kernels::SwapGemmParams& epilogue) {
  if (left_out_.products) return;
  kernels::SwapGemmParams params = epilogue;
  params.tiling = Tiling(p);
  const int weight_rows = params.tiling.weight_rows, tile = params.tiling.input_rows;
  params.weight_map = Map(
      {(params.gated ? kGatesMap : kWeightMap) + weight_rows, p.weight, p.n, p.k, p.weight_stride},
      [&] {
        return params.gated
                   ? kernels::MakeGateUpMap(p.weight, 1, p.n / 2, p.k, weight_rows)
                   : kernels::MakeWeightMap(p.weight, p.n, p.k, p.weight_stride, weight_rows);
      });
  params.in_box_rows = tile;
  params.in_map = Map({kInputMap + tile, p.in, p.num_rows, p.k, p.in_stride}, [&] {
    return kernels::MakeInputMap(p.in, p.num_rows, p.k, p.in_stride, tile);
  });
  params.num_rows = p.num_rows;
  params.n = p.n;
  params.k = p.k;
  params.out = p.out;
  params.out_stride = p.out_stride;
  params.out_f32 = p.out_f32;
  kernels::LaunchSwapGemm(params, stream());
}

Tensor CudaBackend::Rounded(Tensor in) {
  if (in.dtype == DType::kBf16) return in;
  const Tensor out =
      MakeTensor(Scratch(in.rows() * in.cols() * 2), DType::kBf16, in.rows(), in.cols());
  kernels::RoundRowsParams round;
  round.in = in.f32();
  round.out = static_cast<Bf16*>(out.data);
  round.in_stride = in.row_stride;
  round.out_stride = out.row_stride;
  round.num_rows = Int(in.rows());
  round.num_cols = Int(in.cols());
  kernels::LaunchRoundRows(round, stream());
  return out;
}

// A head's weights are large, but the cap's pass over all logits costs more than the library gains.
bool CudaBackend::IsOwnHead(const kernels::GemmParams& p) const {
  constexpr int kMaxRows = 80;
  if (!CanBeOwn(p) || p.num_rows > kMaxRows) return false;
  const kernels::GemmChoice* choice = blas_.Choice(p.n, p.k, p.num_rows);
  return batch_invariant_ || choice == nullptr || choice->is_own();
}

void CudaBackend::LinearSoftCap(Tensor out, Tensor in, const LinearWeight& weight, float cap) {
  const std::optional<Tensor> whole = Whole(weight);
  if (whole && in.rows() > 0 && out.dtype == DType::kF32) {
    const kernels::GemmParams product = Product(out, Rounded(in), *whole);
    if (IsOwnHead(product)) {
      kernels::SwapGemmParams epilogue;
      epilogue.cap = cap;
      OwnGemm(product, epilogue);
      return;
    }
  }
  Ops::LinearSoftCap(out, in, weight, cap);
}

void CudaBackend::LinearGelu(Tensor gate_up, Tensor in, const LinearWeight& weight) {
  const std::optional<Tensor> whole = Whole(weight);
  if (whole && in.rows() > 0 && in.dtype == DType::kBf16) {
    const kernels::GemmParams product = Product(gate_up, in, *whole);
    if (IsOwn(product) && product.n % 128 == 0 && product.weight_stride == product.k) {
      kernels::SwapGemmParams epilogue;
      epilogue.gated = true;
      OwnGemm(product, epilogue);
      return;
    }
  }
  Ops::LinearGelu(gate_up, in, weight);
}

void CudaBackend::LinearGeluMul(Tensor out, Tensor in, const LinearWeight& weight, Tensor up) {
  const std::optional<Tensor> whole = Whole(weight);
  if (whole && in.rows() > 0 && in.dtype == DType::kBf16 && up.row_stride % 4 == 0) {
    const kernels::GemmParams product = Product(out, in, *whole);
    if (IsOwn(product)) {
      kernels::SwapGemmParams epilogue;
      epilogue.up = up.bf16();
      epilogue.up_stride = up.row_stride;
      OwnGemm(product, epilogue);
      return;
    }
  }
  Ops::LinearGeluMul(out, in, weight, up);
}

// Blocks that lie behind one another in memory are one product.
void CudaBackend::Linear(Tensor out, Tensor in, const LinearWeight& weight) {
  CHECK(in.cols() == weight.cols() && out.cols() == weight.rows() && out.rows() == in.rows(),
        "[{},{}] = [{},{}] x [{},{}]", out.rows(), out.cols(), in.rows(), in.cols(), weight.rows(),
        weight.cols());
  if (in.rows() == 0) return;
  const Tensor x = Rounded(in);
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
    Tensor block = first;
    block.shape[0] = rows;
    Gemm(Product(out.Cols(column, rows), x, block));
    column += rows;
  }
}

}  // namespace lapidary::cuda
