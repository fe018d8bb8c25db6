#include "kernels/moe/moe.h"

#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/swap_gemm.h"
#include "kernels/sampling/centroid.h"
#include "ops/cuda/cuda_backend.h"

namespace lapidary::cuda {
namespace {

enum MapUse { kGateUpMap = 256, kDownMap, kRowMap };

int64_t Aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

ExpertTally CudaBackend::tally() {
  ExpertTally tally;
  device_->CopyOut(&tally, tally_.data(), tally_.bytes());
  return tally;
}

void CudaBackend::Router(Tensor experts, Tensor weights, Tensor x, const RouterWeights& router,
                         float eps) {
  RouterNorm({{}, experts, weights}, x, router, {}, eps);
}

void CudaBackend::RouterNorm(const ExpertInput& out, Tensor x, const RouterWeights& router,
                             Tensor norm, float eps) {
  Tensor z = out.z, experts = out.ids, weights = out.weights;
  CHECK(experts.rows() == x.rows() && weights.rows() == x.rows() &&
            weights.cols() == experts.cols() && router.proj.cols() == x.cols() &&
            router.proj.row_stride == x.cols(),
        "router of [{},{}]", x.rows(), x.cols());
  kernels::RouterParams params;
  params.x = x.bf16();
  params.scale = router.scale.bf16();
  params.proj = router.proj.bf16();
  params.expert_scale = router.per_expert_scale.bf16();
  params.experts = experts.i32();
  params.weights = weights.f32();
  params.x_stride = x.row_stride;
  params.experts_stride = experts.row_stride;
  params.weights_stride = weights.row_stride;
  params.num_rows = Int(x.rows());
  params.hidden = Int(x.cols());
  params.num_experts = Int(router.proj.rows());
  params.top_k = Int(experts.cols());
  params.eps = eps;
  if (!z.empty()) {
    CHECK(z.rows() == x.rows() && z.cols() == x.cols() && norm.num_elements() == x.cols(),
          "experts' input [{},{}]", z.rows(), z.cols());
    params.z = z.bf16();
    params.z_norm = norm.bf16();
    params.z_stride = z.row_stride;
  }
  kernels::LaunchRouter(params, stream());
}

void CudaBackend::Experts(Tensor out, Tensor z, Tensor experts, Tensor weights, Tensor gate_up,
                          Tensor down) {
  if (z.rows() == 0) return;
  kernels::ExpertSumParams sum = ExpertPairs({z, experts, weights}, {gate_up, down});
  sum.out = out.bf16();
  sum.out_stride = out.row_stride;
  kernels::LaunchExpertSum(sum, stream());
}

void CudaBackend::ExpertsNormAddNorm(Tensor h, Tensor x, Tensor, const ExpertInput& in,
                                     const ExpertWeights& weights, const ExpertNorms& norms) {
  CHECK(h.rows() == x.rows() && h.cols() == x.cols() && in.z.rows() == x.rows(), "norms of [{},{}]",
        h.rows(), h.cols());
  if (x.rows() == 0) return;
  kernels::ExpertSumNormParams params;
  params.sum = ExpertPairs(in, weights);
  params.h = h.bf16();
  params.x = x.bf16();
  params.dense_norm = norms.dense.bf16();
  params.expert_norm = norms.experts.bf16();
  params.post_norm = norms.post.bf16();
  if (!norms.next.empty()) params.next_norm = norms.next.bf16();
  params.h_stride = h.row_stride;
  params.x_stride = x.row_stride;
  params.scale = norms.scale;
  params.eps = norms.eps;
  kernels::LaunchExpertSumNorm(params, stream());
}

// Sort, gate and up with GELU, down; what is left is the sum over a row's experts. Between them act
// [pairs,F] bf16 and the pairs' outputs f32.
kernels::ExpertSumParams CudaBackend::ExpertPairs(const ExpertInput& in,
                                                  const ExpertWeights& expert_weights) {
  const Tensor z = in.z, experts = in.ids, weights = in.weights, gate_up = expert_weights.gate_up,
               down = expert_weights.down;
  const int64_t rows = z.rows(), hidden = z.cols(), num_experts = gate_up.shape[0],
                width = gate_up.shape[1] / 2, top_k = experts.cols(), pairs = rows * top_k;
  const int average = Int(pairs / num_experts), tile = kernels::ExpertTile(average);
  // Few rows are gathered by the product itself, a box each; many are first brought into the order
  // of the experts.
  constexpr int kGatheredTile = 32;
  const bool gathers = tile <= kGatheredTile;
  const int64_t index_bytes = Aligned((num_experts + 1 + 2 * pairs) * 4),
                act_bytes = Aligned(pairs * width * 2);
  const int64_t out_bytes =
      Aligned(pairs * hidden * 4);  // also room for the gathered rows, which are gone by then
  char* memory = static_cast<char*>(Scratch(index_bytes + act_bytes + out_bytes));
  kernels::ExpertSortParams sort;
  sort.experts = experts.i32();
  sort.experts_stride = experts.row_stride;
  sort.num_rows = Int(rows);
  sort.top_k = Int(top_k);
  sort.num_experts = Int(num_experts);
  sort.starts = reinterpret_cast<int32_t*>(memory);
  sort.sorted_rows = sort.starts + num_experts + 1;
  sort.places = sort.sorted_rows + pairs;
  sort.tally = static_cast<uint64_t*>(tally_.data());
  sort.max_tally_rows = ExpertTally::kMaxRows;
  kernels::LaunchExpertSort(sort, stream());

  Bf16* act = reinterpret_cast<Bf16*>(memory + index_bytes);
  float* pair_out = reinterpret_cast<float*>(memory + index_bytes + act_bytes);
  kernels::SwapGemmParams product;
  product.expert_starts = sort.starts;
  product.num_experts = Int(num_experts);
  product.num_rows = Int(pairs);
  product.sorted_rows = sort.sorted_rows;
  product.weight_map = Map({kGateUpMap, gate_up.data, num_experts, width, hidden}, [&] {
    return kernels::MakeGateUpMap(gate_up.bf16(), num_experts, width, hidden);
  });
  const auto row_map = [&](const Bf16* base, int64_t count, int64_t cols, int64_t stride,
                           int box_rows) {
    return Map({kRowMap + box_rows, base, count, cols, stride},
               [&] { return kernels::MakeInputMap(base, count, cols, stride, box_rows); });
  };
  product.in_box_rows = gathers ? 1 : tile;
  if (gathers) {
    product.in_map = row_map(z.bf16(), rows, hidden, z.row_stride, 1);
  } else {
    kernels::GatherParams gather;
    gather.in = z.bf16();
    gather.out = reinterpret_cast<Bf16*>(pair_out);
    gather.rows = sort.sorted_rows;
    gather.in_stride = z.row_stride;
    gather.out_stride = hidden;
    gather.num_rows = Int(pairs);
    gather.num_cols = Int(hidden);
    kernels::LaunchGather(gather, stream());
    product.in_map = row_map(gather.out, pairs, hidden, hidden, tile);
  }
  product.n = Int(width);
  product.k = Int(hidden);
  product.out = act;
  product.out_stride = width;
  if (!left_out_.experts) kernels::LaunchExpertGateUp(product, average, stream());

  product.sorted_rows = nullptr;
  product.weight_map = Map({kDownMap, down.data, num_experts * hidden, width, width}, [&] {
    return kernels::MakeWeightMap(down.bf16(), num_experts * hidden, width, width);
  });
  product.in_box_rows = tile;
  product.in_map = row_map(act, pairs, width, width, tile);
  product.n = Int(hidden);
  product.k = Int(width);
  product.out = pair_out;
  product.out_stride = hidden;
  if (!left_out_.experts) kernels::LaunchExpertDown(product, average, stream());

  kernels::ExpertSumParams sum;
  sum.pairs = pair_out;
  sum.places = sort.places;
  sum.weights = weights.f32();
  sum.weights_stride = weights.row_stride;
  sum.num_rows = Int(rows);
  sum.hidden = Int(hidden);
  sum.top_k = Int(top_k);
  return sum;
}

void CudaBackend::CentroidLogits(Tensor logits, Tensor y, Tensor centroids, Tensor token_ordering,
                                 Tensor embed, int top_k) {
  CHECK(logits.cols() == embed.rows() && token_ordering.num_elements() == embed.rows() &&
            y.cols() == embed.cols(),
        "{} logits of {} ids", logits.cols(), embed.rows());
  kernels::CentroidParams params;
  params.y = y.data;
  params.y_bf16 = y.dtype == DType::kBf16;
  params.centroids = centroids.bf16();
  params.token_ordering = token_ordering.i64();
  params.embed = embed.bf16();
  params.logits = logits.f32();
  params.y_stride = y.row_stride;
  params.centroids_stride = centroids.row_stride;
  params.embed_stride = embed.row_stride;
  params.logits_stride = logits.row_stride;
  params.num_rows = Int(y.rows());
  params.hidden = Int(y.cols());
  params.num_centroids = Int(centroids.rows());
  params.vocab = Int(embed.rows());
  params.top_k = top_k;
  kernels::LaunchCentroid(params, stream());
}

}  // namespace lapidary::cuda
