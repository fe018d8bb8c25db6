// Where one layer's K and V lie, as kernels see them. A page holds, for each KV head, K [64,Dh]
// then V [64,Dh] in bf16; folded, rows [64,640] of both (kv/layout.h).
#ifndef LAPIDARY_KERNELS_ATTENTION_KV_VIEW_H_
#define LAPIDARY_KERNELS_ATTENTION_KV_VIEW_H_

#include <cstdint>

#include "base/bf16.h"

namespace lapidary::kernels {

inline constexpr int kPageTokens = 64;

struct KvView {
  char* base = nullptr;  // of the arena
  int64_t slab_bytes = 0, page_bytes = 0, offset = 0;
  int pages_per_slab = 1;
  int num_kv_heads = 0, head_dim = 0;
  bool folded = false;  // head_dim is 512 then, and 128 columns of K rotate
};

// Of a folded row: K's columns, which rotate; then V.
inline constexpr int kFoldedHeadDim = 512, kFoldedKeyColumns = 128,
                     kFoldedColumns = kFoldedHeadDim + kFoldedKeyColumns;
// Folded rows begin at multiples of it: how they are named to TMA.
inline constexpr int kFoldedUnitBytes = 1024;

// The rows of a step: [T] each, and the page table [slots,table_stride] of the layer's kind, cells
// by position / 64.
struct RowsView {
  const int32_t* positions = nullptr;  // where the row's K and V are stored, and its angle
  const int32_t* key_ends = nullptr;   // the row sees keys of positions below this
  const int32_t* slots = nullptr;      // the row's line of the page table; -1: a padding row
  const int32_t* page_table = nullptr;
  int table_stride = 0;
  int num_rows = 0;
};

// Chunks of one launch; a step with more takes several.
inline constexpr int kMaxChunks = 256;

// Where a chunk's sliding K and V lie: scratch page `scratch_page` + i holds cell `first_cell` + i.
struct ChunkPlace {
  int32_t scratch_page = 0, first_cell = 0;
};

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_ATTENTION_KV_VIEW_H_
