#include "kernels/attention/decode.h"

#include <algorithm>

#include "kernels/attention/decode.cuh"
#include "kernels/attention/decode_window.cuh"
#include "kernels/common/launch.cuh"

namespace lapidary::kernels {
namespace {

constexpr int kOneTileRows = 16, kTwoTileRows = 32;
constexpr const char* kName = "DecodeAttention";

int Group(const DecodeAttentionParams& p) { return p.num_heads / p.kv.num_kv_heads; }
int TileRows(const DecodeAttentionParams& p) {
  return p.max_sequence_rows * Group(p) <= kOneTileRows ? kOneTileRows : kTwoTileRows;
}
int PartialRows(const DecodeAttentionParams& p) {
  const int rows = p.max_sequence_rows * Group(p);
  return rows < TileRows(p) ? rows : TileRows(p);
}

// The longest item, in units: the whole table, or what a window touches.
int ItemUnits(const DecodeAttentionParams& p) {
  int pages = p.rows.table_stride;
  if (p.window > 0) pages = std::min(pages, (p.window + p.max_sequence_rows) / kPageTokens + 2);
  return p.window > 0 ? (pages - 1) / SlidingSplit(p.window) + 2 : FullSplitOf(pages - 1) + 1;
}
// Units that a block may have to put in scratch: of the item before its run and of the item after
// it.
int BlockUnits(const DecodeAttentionParams& p) {
  const int64_t tiles = (int64_t{p.max_sequence_rows} * Group(p) + TileRows(p) - 1) / TileRows(p);
  const int64_t units = p.rows.num_rows * tiles * p.kv.num_kv_heads * ItemUnits(p);
  // A run has equal pages, so it may have more than its share of short units: a whole item at most.
  return static_cast<int>(std::min<int64_t>(2 * ItemUnits(p), units));
}
// Units of an item of a sliding layer, at most.
int WindowUnits(const DecodeAttentionParams& p) {
  const int pages = (p.window + p.max_sequence_rows + kPageTokens - 3) / kPageTokens + 1;
  return (pages - 2 + SlidingSplit(p.window)) / SlidingSplit(p.window) + 1;
}
// Blocks that an item of a sliding layer has to itself; 0: there are more items than blocks fit
// beside one another, and the persistent kernel shares them out better, or an item has more than 16
// rows, for which registers do not suffice.
int WindowBlocks(const DecodeAttentionParams& p) {
  if (p.window == 0 || p.kv.head_dim != 256 || TileRows(p) != kOneTileRows) return 0;
  const int sequences = (p.rows.num_rows + p.max_sequence_rows - 1) / p.max_sequence_rows;
  const int items = sequences * p.kv.num_kv_heads, places = NumSms();
  return items > places ? 0 : std::min({places / items, WindowUnits(p), 8});
}
int64_t UnitFloats(const DecodeAttentionParams& p) {
  return int64_t{PartialRows(p)} * (p.kv.head_dim + 2);
}

template <int kHeadDim, int kRowTiles, bool kFolded>
void LaunchFor(const DecodeAttentionParams& p, Stream stream) {
  using Config = DecodeConfig<kHeadDim, kRowTiles, kFolded>;
  Launch(kName, DecodeAttentionKernel<Config>,
         {static_cast<unsigned>(NumSms()), Config::kThreads, Config::kSharedBytes}, stream, p);
}

template <int kHeadDim, bool kFolded = false>
void LaunchFor(const DecodeAttentionParams& p, Stream stream) {
  if (TileRows(p) == kOneTileRows)
    LaunchFor<kHeadDim, 1, kFolded>(p, stream);
  else
    LaunchFor<kHeadDim, 2, kFolded>(p, stream);
  const int parts = (PartialRows(p) * (kHeadDim / 4) + kCombineThreads - 1) / kCombineThreads;
  Launch("DecodeCombine", DecodeCombineKernel<kHeadDim>,
         {dim3(static_cast<unsigned>(NumSms()), static_cast<unsigned>(parts)), kCombineThreads},
         stream, p);
}

void LaunchWindow(const DecodeAttentionParams& p, int blocks, Stream stream) {
  using Config = DecodeConfig<256, 1, false, true>;
  Launch("WindowDecode", WindowDecodeKernel<Config>,
         {dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(p.kv.num_kv_heads),
               static_cast<unsigned>(p.rows.num_rows)),
          Config::kThreads, Config::kSharedBytes, static_cast<unsigned>(blocks)},
         stream, p);
}

}  // namespace

TensorMap MakeKvMap(const void* arena, int64_t arena_bytes, int head_dim, int keys, int blocks) {
  const auto dim = static_cast<uint64_t>(head_dim);
  TensorMapSpec spec;
  spec.base = arena;
  spec.rank = 3;
  spec.dims = {64, static_cast<uint64_t>(arena_bytes) / (2 * dim), dim / 64};
  spec.strides = {2 * dim, 128};
  spec.box = {64, static_cast<uint32_t>(keys), static_cast<uint32_t>(blocks)};
  return MakeTensorMap(spec);
}

TensorMap MakeFoldedMap(const void* arena, int64_t arena_bytes, int keys, int blocks) {
  constexpr int64_t kTileBytes = int64_t{kPageTokens} * kFoldedColumns * 2;
  TensorMapSpec spec;
  spec.base = arena;
  spec.rank = 4;
  spec.dims = {64, kPageTokens, kFoldedColumns / 64,
               static_cast<uint64_t>((arena_bytes - kTileBytes) / kFoldedUnitBytes + 1)};
  spec.strides = {2 * kFoldedColumns, 128, kFoldedUnitBytes};
  spec.box = {64, static_cast<uint32_t>(keys), static_cast<uint32_t>(blocks), 1};
  return MakeTensorMap(spec);
}

int DecodeStageKeys(const DecodeAttentionParams& p) {
  const bool one = TileRows(p) == kOneTileRows;
  if (p.kv.folded) return DecodeConfig<512, 1, true>::kStageKeys;
  if (p.kv.head_dim == 512)
    return one ? DecodeConfig<512, 1>::kStageKeys : DecodeConfig<512, 2>::kStageKeys;
  return one ? DecodeConfig<256, 1>::kStageKeys : DecodeConfig<256, 2>::kStageKeys;
}

int64_t DecodeScratchBytes(const DecodeAttentionParams& p) {
  if (WindowBlocks(p) > 0)
    return int64_t{WindowUnits(p)} * p.rows.num_rows * p.num_heads * (p.kv.head_dim + 2) * 4;
  return int64_t{NumSms()} *
         (int64_t{BlockUnits(p)} * UnitFloats(p) * 4 + static_cast<int64_t>(sizeof(DecodeBorder)));
}

void LaunchDecodeAttention(const DecodeAttentionParams& params, Stream stream) {
  DecodeAttentionParams p = params;
  Require(p.rows.num_rows <= kMaxDecodeSequences, kName, "rows", p.rows.num_rows);
  Require(p.num_heads % p.kv.num_kv_heads == 0, kName, "query heads", p.num_heads);
  Require(p.q_stride % 8 == 0 && Aligned16(p.q), kName, "row stride", p.q_stride);
  Require(!p.kv.folded || p.window == 0, kName, "window", p.window);
  Require(ItemUnits(p) <= kMaxItemUnits, kName, "page table cells", p.rows.table_stride);
  const int64_t unit = p.kv.folded ? kFoldedUnitBytes : 2 * p.kv.head_dim;
  Require(p.kv.slab_bytes % unit == 0 && p.kv.page_bytes % unit == 0 && p.kv.offset % unit == 0,
          kName, "page bytes", p.kv.page_bytes);
  if (p.rows.num_rows == 0) return;
  if (const int blocks = WindowBlocks(p); blocks > 0) {
    p.partials = static_cast<float*>(p.scratch);
    p.block_units = WindowUnits(p);
    return LaunchWindow(p, blocks, stream);
  }
  p.partial_rows = PartialRows(p);
  p.block_units = BlockUnits(p);
  p.partials = static_cast<float*>(p.scratch);
  p.borders = reinterpret_cast<DecodeBorder*>(p.partials +
                                              int64_t{NumSms()} * p.block_units * UnitFloats(p));
  if (p.kv.head_dim == 256)
    LaunchFor<256>(p, stream);
  else if (p.kv.head_dim == 512 && p.kv.folded)
    LaunchFor<512, true>(p, stream);
  else if (p.kv.head_dim == 512)
    LaunchFor<512>(p, stream);
  else
    ShapeRefused(kName, "head size", p.kv.head_dim);
}

}  // namespace lapidary::kernels
