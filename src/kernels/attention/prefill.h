// Prefill attention: the rows of prompt chunks over their keys, which are many. Bound by the tensor
// cores.
#ifndef LAPIDARY_KERNELS_ATTENTION_PREFILL_H_
#define LAPIDARY_KERNELS_ATTENTION_PREFILL_H_

#include "kernels/attention/kv_view.h"
#include "kernels/common/launch.h"
#include "kernels/common/tensor_map.h"

namespace lapidary::kernels {

// The map of an arena, or of scratch, for this kernel; of folded rows it is MakeFoldedMap of whole
// pages by kFoldedBoxBlocks.
TensorMap MakePrefillMap(const void* arena, int64_t arena_bytes, int head_dim);
inline constexpr int kFoldedBoxBlocks = 2;

// The rows of one chunk: neighbours, with ascending key ends. Its keys lie in the pages of its line
// of the table or, without a table, in pages scratch_page + i for cells first_cell + i.
struct PrefillSpan {
  int32_t first_row = 0, num_rows = 0;
  int32_t slot = 0;
  ChunkPlace place;
};

struct PrefillAttentionParams {
  TensorMap kv_map;
  KvView kv;
  RowsView rows;  // page_table null: scratch
  PrefillSpan spans[kMaxChunks];
  int num_spans = 0;
  const Bf16* q = nullptr;  // [T,H*Dh]
  Bf16* out = nullptr;      // [T,H*Dh]
  int64_t q_stride = 0, out_stride = 0;
  int num_heads = 0;  // H
  int window = 0;     // 0: all keys
};
void LaunchPrefillAttention(const PrefillAttentionParams& params, Stream stream);

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_ATTENTION_PREFILL_H_
