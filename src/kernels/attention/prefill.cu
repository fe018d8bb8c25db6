#include "kernels/attention/prefill.h"

#include "kernels/attention/prefill.cuh"
#include "kernels/attention/prefill_folded.cuh"
#include "kernels/common/launch.cuh"

namespace lapidary::kernels {
namespace {

template <typename Config>
void LaunchFor(const PrefillAttentionParams& p, void (*kernel)(PrefillAttentionParams),
               Stream stream) {
  const int group = p.num_heads / p.kv.num_kv_heads;
  int64_t items = 0;
  for (int i = 0; i < p.num_spans; ++i)
    items += (int64_t{p.spans[i].num_rows} * group + Config::kBlockRows - 1) / Config::kBlockRows *
             p.kv.num_kv_heads;
  const int64_t blocks = items < NumSms() ? items : NumSms();
  Launch("PrefillAttention", kernel,
         {static_cast<unsigned>(blocks), Config::kThreads, Config::kSharedBytes}, stream, p);
}

}  // namespace

TensorMap MakePrefillMap(const void* arena, int64_t arena_bytes, int head_dim) {
  const auto dim = static_cast<uint64_t>(head_dim);
  TensorMapSpec spec;
  spec.base = arena;
  spec.rank = 3;
  spec.dims = {64, static_cast<uint64_t>(arena_bytes) / (2 * dim), dim / 64};
  spec.strides = {2 * dim, 128};
  spec.box = {64, kPageTokens, 4};
  return MakeTensorMap(spec);
}

void LaunchPrefillAttention(const PrefillAttentionParams& p, Stream stream) {
  const char* name = "PrefillAttention";
  Require(p.num_spans <= kMaxChunks, name, "chunks", p.num_spans);
  Require(p.num_heads % p.kv.num_kv_heads == 0, name, "query heads", p.num_heads);
  Require(p.q_stride % 8 == 0 && Aligned16(p.q), name, "row stride", p.q_stride);
  const int64_t unit = p.kv.folded ? kFoldedUnitBytes : 2 * p.kv.head_dim;
  Require(p.kv.slab_bytes % unit == 0 && p.kv.page_bytes % unit == 0 && p.kv.offset % unit == 0,
          name, "page bytes", p.kv.page_bytes);
  Require(!p.kv.folded || p.window == 0, name, "window", p.window);
  if (p.kv.head_dim == 256)
    LaunchFor<PrefillConfig<256>>(p, PrefillAttentionKernel<PrefillConfig<256>>, stream);
  else if (p.kv.head_dim == 512 && p.kv.folded)
    LaunchFor<FoldedPrefillConfig>(p, FoldedPrefillKernel, stream);
  else if (p.kv.head_dim == 512)
    LaunchFor<PrefillConfig<512>>(p, PrefillAttentionKernel<PrefillConfig<512>>, stream);
  else
    ShapeRefused(name, "head size", p.kv.head_dim);
}

}  // namespace lapidary::kernels
