// Attention: decode rows and chunks go to kernels of their own.
#include <algorithm>
#include <vector>

#include "kernels/attention/decode.h"
#include "kernels/attention/prefill.h"
#include "kernels/attention/qkv_store.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/cuda/cuda_backend.h"

namespace lapidary::cuda {
namespace {

enum MapUse { kDecodeMap, kGroupMap, kPrefillMap, kFoldedMap };

kernels::KvView ViewOf(const LayerKv& kv) {
  CHECK(kv.dtype == DType::kBf16, "the CUDA backend keeps bf16 KV, this cache has dtype {}",
        static_cast<int>(kv.dtype));
  kernels::KvView view;
  view.base = kv.base;
  view.slab_bytes = kv.slab_bytes;
  view.page_bytes = kv.page_bytes;
  view.offset = kv.offset;
  view.pages_per_slab = kv.pages_per_slab;
  view.num_kv_heads = kv.num_kv_heads;
  view.head_dim = kv.head_dim;
  view.folded = kv.folded();
  static_assert(kGpuFoldHeadDim == kernels::kFoldedHeadDim &&
                kGpuFoldColumns == kernels::kFoldedKeyColumns);
  CHECK(!kv.folded() || (kv.head_dim == kGpuFoldHeadDim && kv.fold_columns == kGpuFoldColumns),
        "kernels fold {} of {} columns, not {} of {}", kGpuFoldColumns, kGpuFoldHeadDim,
        kv.fold_columns, kv.head_dim);
  return view;
}

int64_t ArenaBytes(const LayerKv& kv) { return kv.num_pages / kv.pages_per_slab * kv.slab_bytes; }

// Rows [begin, end) of a set.
kernels::RowsView RowsOf(const RowSet& rows, bool full, int64_t begin, int64_t end) {
  const Tensor& table = full ? rows.full_pages : rows.sliding_pages;
  kernels::RowsView view;
  view.positions = rows.positions.i32() + begin;
  view.key_ends = rows.key_ends.i32() + begin;
  view.slots = rows.slots.i32() + begin;
  view.page_table = table.i32();
  view.table_stride = Int(table.row_stride);
  view.num_rows = Int(end - begin);
  return view;
}

}  // namespace

void CudaBackend::FoldedQueryNorm(Tensor, const QkvSpec&, const AttentionSpec&) {
  CHECK(false, "on CUDA q's norm is part of QkvNormRopeStore");
}
void CudaBackend::Rope(Tensor, const RowSet&, int, const RopeSpec&) {
  CHECK(false, "on CUDA RoPE is part of QkvNormRopeStore");
}
void CudaBackend::StoreKv(Tensor, Tensor, const RowSet&, const AttentionSpec&) {
  CHECK(false, "on CUDA the KV store is part of QkvNormRopeStore");
}

void CudaBackend::GatherWindow(std::span<const WindowCopy> copies, const AttentionSpec& spec) {
  kernels::GatherWindowParams params;
  params.kv = ViewOf(spec.kv);
  params.scratch = ViewOf(spec.scratch);
  for (size_t begin = 0; begin < copies.size(); begin += kernels::kMaxChunks) {
    const auto part =
        copies.subspan(begin, std::min<size_t>(kernels::kMaxChunks, copies.size() - begin));
    params.num_copies = static_cast<int>(part.size());
    for (size_t i = 0; i < part.size(); ++i)
      params.copies[i] = {static_cast<int32_t>(part[i].from), part[i].to};
    kernels::LaunchGatherWindow(params, stream());
  }
}

void CudaBackend::QkvNormRopeStore(Tensor qkv, const QkvSpec& qkv_spec, const RowSet& rows,
                                   const AttentionSpec& spec) {
  const int64_t head_dim = spec.kv.head_dim, kv_width = 2 * spec.kv.num_kv_heads * head_dim;
  const int64_t width =
      (qkv_spec.has_q ? spec.num_heads * head_dim : 0) + (qkv_spec.has_kv ? kv_width : 0);
  CHECK(qkv.rows() == rows.num_rows() && qkv.cols() >= width, "qkv [{},{}]", qkv.rows(),
        qkv.cols());
  CHECK(rows.spans.size() <= kernels::kMaxChunks, "{} chunks in a step", rows.spans.size());
  kernels::QkvStoreParams params;
  params.qkv = qkv.bf16();
  params.stride = qkv.row_stride;
  params.num_heads = qkv_spec.has_q ? spec.num_heads : 0;
  params.has_kv = qkv_spec.has_kv;
  params.k_eq_v = qkv_spec.k_eq_v;
  if (qkv_spec.has_q) params.q_norm = qkv_spec.q_norm.bf16();
  if (qkv_spec.has_kv || spec.kv.folded()) params.k_norm = qkv_spec.k_norm.bf16();
  params.frequencies = Frequencies(spec.rope, spec.kv.head_dim);
  params.num_rotated = static_cast<int>(spec.rope.rotary_factor * spec.kv.head_dim / 2);
  params.eps = spec.norm_eps;
  params.kv = ViewOf(spec.kv);
  params.rows = RowsOf(rows, spec.full, 0, rows.num_rows());
  if (!spec.full && !rows.spans.empty()) {
    params.chunks = rows.chunks.i32();
    params.scratch = ViewOf(spec.scratch);
    for (size_t i = 0; i < rows.spans.size(); ++i)
      params.places[i] = {rows.spans[i].scratch_page, rows.spans[i].first_cell};
  }
  kernels::LaunchQkvStore(params, stream());
}

// On demand and slow: the definition's check on copies.
void CudaBackend::CheckTables(const RowSet& rows, const AttentionSpec& spec, int layer) {
  RowSet host = rows;
  std::vector<std::vector<int32_t>> copies;
  for (Tensor* tensor : {&host.positions, &host.key_ends, &host.slots, &host.chunks,
                         &host.full_pages, &host.sliding_pages}) {
    if (tensor->empty()) continue;
    copies.emplace_back(static_cast<size_t>(tensor->rows() * tensor->row_stride));
    device_->CopyOut(copies.back().data(), tensor->i32(),
                     static_cast<int64_t>(copies.back().size() * sizeof(int32_t)));
    tensor->data = copies.back().data();
  }
  MakeCpuOps(1)->CheckTables(host, spec, layer);
}

void CudaBackend::Attention(Tensor out, Tensor q, const RowSet& rows, const AttentionSpec& spec) {
  CHECK(q.rows() == rows.num_rows() && out.rows() == q.rows() && out.cols() == q.cols() &&
            q.cols() == int64_t{spec.num_heads} * spec.kv.head_dim,
        "attention of [{},{}], {} heads", q.rows(), q.cols(), spec.num_heads);
  // Rows between the chunks are decode rows.
  int64_t row = 0;
  for (const ChunkSpan& span : rows.spans) {
    DecodeRows(out, q, rows, spec, row, span.first_row);
    row = int64_t{span.first_row} + span.num_rows;
  }
  DecodeRows(out, q, rows, spec, row, rows.num_rows());
  for (size_t begin = 0; begin < rows.spans.size(); begin += kernels::kMaxChunks)
    PrefillChunks(out, q, rows, spec,
                  rows.spans.subspan(
                      begin, std::min<size_t>(kernels::kMaxChunks, rows.spans.size() - begin)));
}

const kernels::TensorMap& CudaBackend::FoldedMap(const LayerKv& kv, int keys, int blocks) {
  return Map({kFoldedMap, kv.base, ArenaBytes(kv), blocks, keys},
             [&] { return kernels::MakeFoldedMap(kv.base, ArenaBytes(kv), keys, blocks); });
}

void CudaBackend::DecodeRows(Tensor out, Tensor q, const RowSet& rows, const AttentionSpec& spec,
                             int64_t begin, int64_t end) {
  if (begin >= end) return;
  const LayerKv& kv = spec.kv;
  kernels::DecodeAttentionParams params;
  params.kv = ViewOf(kv);
  params.rows = RowsOf(rows, spec.full, begin, end);
  params.max_sequence_rows = rows.max_sequence_rows;
  params.q = q.Rows(begin, end - begin).bf16();
  params.out = out.Rows(begin, end - begin).bf16();
  params.q_stride = q.row_stride;
  params.out_stride = out.row_stride;
  params.num_heads = spec.num_heads;
  params.window = spec.window;
  const int stage_keys = kernels::DecodeStageKeys(params);
  if (kv.folded()) {
    params.kv_map = FoldedMap(kv, stage_keys, kernels::kFoldedColumns / 64);
  } else {
    const auto map = [&](MapUse use, int keys, int blocks) {
      return Map({use, kv.base, ArenaBytes(kv), kv.head_dim, keys}, [&] {
        return kernels::MakeKvMap(kv.base, ArenaBytes(kv), kv.head_dim, keys, blocks);
      });
    };
    params.kv_map = map(kDecodeMap, stage_keys, kv.head_dim / 64);
    params.group_map = map(kGroupMap, kernels::kKeyGroup, 1);
  }
  params.scratch = Scratch(kernels::DecodeScratchBytes(params));
  kernels::LaunchDecodeAttention(params, stream());
}

void CudaBackend::PrefillChunks(Tensor out, Tensor q, const RowSet& rows, const AttentionSpec& spec,
                                std::span<const ChunkSpan> spans) {
  const LayerKv& kv = spec.full ? spec.kv : spec.scratch;
  kernels::PrefillAttentionParams params;
  if (kv.folded())
    params.kv_map = FoldedMap(kv, kPageTokens, kernels::kFoldedBoxBlocks);
  else
    params.kv_map = Map({kPrefillMap, kv.base, ArenaBytes(kv), kv.head_dim, 0}, [&] {
      return kernels::MakePrefillMap(kv.base, ArenaBytes(kv), kv.head_dim);
    });
  params.kv = ViewOf(kv);
  params.rows = RowsOf(rows, spec.full, 0, rows.num_rows());
  if (!spec.full) params.rows.page_table = nullptr;
  params.num_spans = static_cast<int>(spans.size());
  for (size_t i = 0; i < spans.size(); ++i)
    params.spans[i] = {spans[i].first_row,
                       spans[i].num_rows,
                       spans[i].slot,
                       {spans[i].scratch_page, spans[i].first_cell}};
  params.q = q.bf16();
  params.out = out.bf16();
  params.q_stride = q.row_stride;
  params.out_stride = out.row_stride;
  params.num_heads = spec.num_heads;
  params.window = spec.window;
  kernels::LaunchPrefillAttention(params, stream());
}

}  // namespace lapidary::cuda
