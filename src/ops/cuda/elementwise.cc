#include "kernels/elementwise/elementwise.h"

#include <algorithm>
#include <iterator>

#include "ops/cuda/cuda_backend.h"

namespace lapidary::cuda {

namespace {

kernels::ElementwiseParams PairParams(Tensor out, Tensor a, Tensor b) {
  CHECK(b.empty() || (a.rows() == b.rows() && a.cols() == b.cols()), "[{},{}] with [{},{}]",
        a.rows(), a.cols(), b.rows(), b.cols());
  kernels::ElementwiseParams params;
  params.a = a.bf16();
  params.out = out.bf16();
  params.a_stride = a.row_stride;
  params.out_stride = out.row_stride;
  if (!b.empty()) {
    params.b = b.bf16();
    params.b_stride = b.row_stride;
  }
  params.num_rows = Int(a.rows());
  params.num_cols = Int(a.cols());
  return params;
}

}  // namespace

// Ids are checked where they enter, on the host.
void CudaBackend::Embed(Tensor out, Tensor table, Tensor ids, float scale) {
  CHECK(out.rows() == ids.rows() && out.cols() == table.cols(), "embed [{},{}]", out.rows(),
        out.cols());
  kernels::GatherParams params;
  params.in = table.data;
  params.in_f32 = table.dtype == DType::kF32;
  params.out = out.bf16();
  params.rows = ids.i32();
  params.in_stride = table.row_stride;
  params.out_stride = out.row_stride;
  params.num_rows = Int(out.rows());
  params.num_cols = Int(out.cols());
  params.scale = scale;
  kernels::LaunchGather(params, stream());
}

void CudaBackend::FillDummy(Tensor out, const DummyRule& rule) {
  kernels::LaunchFillDummy({out.bf16(), out.num_elements(), rule.key, rule.centre, rule.step},
                           stream());
}

void CudaBackend::GatherRows(Tensor out, Tensor in, Tensor rows) { Embed(out, in, rows, 1.0f); }

void CudaBackend::ReplaceIds(Tensor out, Tensor ids, std::span<const int> from, int32_t to) {
  kernels::ReplaceIdsParams params;
  CHECK(from.size() <= std::size(params.from), "{} ids to replace", from.size());
  params.ids = ids.i32();
  params.out = out.i32();
  params.num_rows = Int(ids.rows());
  params.num_from = static_cast<int>(from.size());
  std::copy(from.begin(), from.end(), params.from);
  params.to = to;
  kernels::LaunchReplaceIds(params, stream());
}

void CudaBackend::RmsNorm(Tensor out, Tensor in, Tensor weight, float eps, int64_t group) {
  CHECK(group > 0 && in.cols() % group == 0 && out.cols() == in.cols() && out.rows() == in.rows(),
        "norm of [{},{}] by {}", in.rows(), in.cols(), group);
  CHECK(weight.empty() || weight.num_elements() == group, "norm weight {} for group {}",
        weight.num_elements(), group);
  kernels::RmsNormParams params;
  params.in = in.bf16();
  params.out = out.data;
  params.out_f32 = out.dtype == DType::kF32;
  if (!weight.empty()) params.weight = weight.bf16();
  params.in_stride = in.row_stride;
  params.out_stride = out.row_stride;
  params.num_rows = Int(in.rows());
  params.num_cols = Int(in.cols());
  params.group = Int(group);
  params.eps = eps;
  kernels::LaunchRmsNorm(params, stream());
}

void CudaBackend::AddScale(Tensor x, Tensor y, float scale) {
  kernels::ElementwiseParams params = PairParams(x, x, y);
  params.scale = scale;
  kernels::LaunchAddScale(params, stream());
}

void CudaBackend::GeluMul(Tensor out, Tensor gate, Tensor up) {
  kernels::LaunchGeluMul(PairParams(out, gate, up), stream());
}

void CudaBackend::SoftCap(Tensor x, float cap) {
  kernels::SoftCapParams params;
  params.x = x.f32();
  params.stride = x.row_stride;
  params.num_rows = Int(x.rows());
  params.num_cols = Int(x.cols());
  params.cap = cap;
  kernels::LaunchSoftCap(params, stream());
}

void CudaBackend::ReduceNormAddNorm(Tensor h, Tensor x, Tensor post_norm, Tensor next_norm,
                                    float scale, float eps) {
  CHECK(h.rows() == x.rows() && h.cols() == x.cols() && post_norm.num_elements() == h.cols() &&
            (next_norm.empty() || next_norm.num_elements() == h.cols()),
        "norms of [{},{}]", h.rows(), h.cols());
  kernels::NormAddNormParams params;
  params.h = h.bf16();
  params.x = x.bf16();
  params.post_norm = post_norm.bf16();
  if (!next_norm.empty()) params.next_norm = next_norm.bf16();
  params.h_stride = h.row_stride;
  params.x_stride = x.row_stride;
  params.num_rows = Int(h.rows());
  params.num_cols = Int(h.cols());
  params.scale = scale;
  params.eps = eps;
  kernels::LaunchNormAddNorm(params, stream());
}

void CudaBackend::PerLayerInput(Tensor context, Tensor tokens, Tensor norm, float context_scale,
                                float eps) {
  CHECK(context.rows() == tokens.rows() && context.cols() == tokens.cols(),
        "per-layer input [{},{}]", context.rows(), context.cols());
  kernels::PerLayerInputParams params;
  params.context = context.bf16();
  params.tokens = tokens.bf16();
  params.norm = norm.bf16();
  params.context_stride = context.row_stride;
  params.tokens_stride = tokens.row_stride;
  params.num_rows = Int(context.rows());
  params.num_cols = Int(context.cols());
  params.group = Int(norm.num_elements());
  params.context_scale = context_scale;
  params.eps = eps;
  kernels::LaunchPerLayerInput(params, stream());
}

}  // namespace lapidary::cuda
