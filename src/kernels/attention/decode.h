// Decode attention: few query rows a sequence (decode and verify rows) over paged K and V. Bound by
// the reading of the cache.
//
// The work is cut into units at fixed page indices: (sequence, KV head, row tile, split). A unit
// starts from nothing, and the units of an item are merged left to right by one formula, in the
// block or by a second kernel where an item lies in several blocks, so that no bit depends on the
// batch, the number of multiprocessors or which block did what. A persistent grid takes runs of
// units of equal pages; where few items have a window, each has blocks of its own instead.
#ifndef LAPIDARY_KERNELS_ATTENTION_DECODE_H_
#define LAPIDARY_KERNELS_ATTENTION_DECODE_H_

#include "kernels/attention/kv_view.h"
#include "kernels/common/launch.h"
#include "kernels/common/tensor_map.h"

namespace lapidary::kernels {

inline constexpr int kMaxDecodeSequences = 1024;
inline constexpr int kMaxItemUnits = 256;
inline constexpr int kSlidingSplitPages = 4, kShortWindowSplitPages = 2, kShortWindow = 512;

// Keys that are fetched alone where a row's keys begin or end.
inline constexpr int kKeyGroup = 16;

// The map of an arena for one head size: all of it as rows of head_dim elements, `keys` by `blocks`
// of 64 columns at a time.
TensorMap MakeKvMap(const void* arena, int64_t arena_bytes, int head_dim, int keys, int blocks);

// What one block leaves for the merging of items that lie in several blocks: its units in scratch
// are first `head_units` of an item that began before, then `tail_units` of an item that ends after
// it.
struct DecodeBorder {
  int32_t head_units = 0, tail_units = 0;
  int32_t tail_splits = 0;  // of the whole tail item; 0: there is none
  int32_t first_row = 0, first_packed = 0, num_packed = 0, kv_head = 0;
  int32_t unused = 0;
};

struct DecodeAttentionParams {
  TensorMap kv_map;     // of DecodeStageKeys keys and all columns
  TensorMap group_map;  // of kKeyGroup keys and one block; of folded rows not used
  KvView kv;
  RowsView
      rows;  // neighbouring rows of one slot are a sequence; a row without keys (end 0) gets zeros
  int max_sequence_rows = 0;  // rows of the largest sequence
  const Bf16* q = nullptr;    // [T,H*Dh]
  Bf16* out = nullptr;        // [T,H*Dh]
  int64_t q_stride = 0, out_stride = 0;
  int num_heads = 0;  // H
  int window = 0;     // 0: all keys
  // Scratch, of DecodeScratchBytes.
  void* scratch = nullptr;
  // Set by the launcher.
  float* partials = nullptr;
  DecodeBorder* borders = nullptr;  // [blocks]
  int partial_rows = 0;
  int block_units = 0;  // that a block may leave in scratch, or that an item may have
};

// The map of an arena for folded rows, `keys` by `blocks` of 64 columns at a time: dimensions are
// the columns of a block, the keys of a page, blocks, and where the page's rows begin, in
// kFoldedUnitBytes.
TensorMap MakeFoldedMap(const void* arena, int64_t arena_bytes, int keys, int blocks);

int64_t DecodeScratchBytes(const DecodeAttentionParams& params);
int DecodeStageKeys(const DecodeAttentionParams& params);
void LaunchDecodeAttention(const DecodeAttentionParams& params, Stream stream);

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_ATTENTION_DECODE_H_
