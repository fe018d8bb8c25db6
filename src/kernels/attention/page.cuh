// Address of a page.
#ifndef LAPIDARY_KERNELS_ATTENTION_PAGE_CUH_
#define LAPIDARY_KERNELS_ATTENTION_PAGE_CUH_

#include "kernels/attention/kv_view.h"

namespace lapidary::kernels {

// K [64,Dh] of one KV head in one page; V follows it.
__device__ __forceinline__ char* PageKeys(const KvView& kv, int page, int kv_head) {
  return kv.base + int64_t{page / kv.pages_per_slab} * kv.slab_bytes +
         int64_t{page % kv.pages_per_slab} * kv.page_bytes + kv.offset +
         int64_t{kv_head} * 2 * kPageTokens * kv.head_dim * 2;
}

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_ATTENTION_PAGE_CUH_
