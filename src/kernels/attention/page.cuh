// Address of a page, and the order of a folded row.
#ifndef LAPIDARY_KERNELS_ATTENTION_PAGE_CUH_
#define LAPIDARY_KERNELS_ATTENTION_PAGE_CUH_

#include "kernels/attention/kv_view.h"

namespace lapidary::kernels {

// Columns of K and V of a token, bytes of them in a page.
__device__ __forceinline__ int64_t KvHeadBytes(const KvView& kv) {
  return int64_t{kPageTokens} * (kv.folded ? kFoldedColumns : 2 * kv.head_dim) * 2;
}
// Where a page's keys of one layer begin, from the arena's start.
__device__ __forceinline__ int64_t PageOffset(const KvView& kv, int page) {
  return int64_t{page / kv.pages_per_slab} * kv.slab_bytes +
         int64_t{page % kv.pages_per_slab} * kv.page_bytes + kv.offset;
}
// K [64,Dh] of one KV head in one page, V behind it; or the folded rows.
__device__ __forceinline__ char* PageKeys(const KvView& kv, int page, int kv_head) {
  return kv.base + PageOffset(kv, page) + kv_head * KvHeadBytes(kv);
}

// A head's columns in blocks of 64, in the order of a folded row: what block `block` of a score's
// operand (the row's first 512 columns) and of a value's (its last 512) is in the model's order.
__device__ __forceinline__ constexpr int FoldedKeyBlock(int block) {
  return block < 2 ? 4 * block : block < 5 ? block - 1 : block;
}
__device__ __forceinline__ constexpr int FoldedValueBlock(int block) {
  return block < 3 ? block + 1 : block < 6 ? block + 2 : 4 * (block - 6);
}

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_ATTENTION_PAGE_CUH_
