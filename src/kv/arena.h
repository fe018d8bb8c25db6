// KvArena: the bytes of the KV cache, one range of equal slabs. Storing only; which page is whose
// is SlabPool's.
#ifndef LAPIDARY_KV_ARENA_H_
#define LAPIDARY_KV_ARENA_H_

#include <cstdint>

#include "device/device.h"
#include "kv/layout.h"

namespace lapidary {

// One layer's cache as an op sees it. Pages are named by the raw id of the layer's kind.
struct LayerKv {
  char* base = nullptr;  // of the arena
  DType dtype = DType::kF32;
  int num_kv_heads = 0, head_dim = 0, fold_columns = 0;
  int64_t slab_bytes = 0, page_bytes = 0, offset = 0;
  int32_t pages_per_slab = 1;
  int32_t num_pages = 0;  // ids are below this

  bool folded() const { return fold_columns > 0; }
  int row_columns() const { return KvRowColumns(head_dim, fold_columns); }
  // K and V of one KV head in a page.
  int64_t head_bytes() const { return int64_t{kPageTokens} * row_columns() * SizeOf(dtype); }
  // Folded: rows [64,Dh+F]. Else K [64,Dh]; V [64,Dh] follows it.
  char* Keys(int32_t page, int kv_head) const {
    CHECK(page > 0 && page < num_pages, "page {} of {}", page, num_pages);
    return base + page / pages_per_slab * slab_bytes + page % pages_per_slab * page_bytes + offset +
           int64_t{kv_head} * head_bytes();
  }
  char* Values(int32_t page, int kv_head) const {
    CHECK(!folded(), "V of a folded cache");
    return Keys(page, kv_head) + head_bytes() / 2;
  }
};

class KvArena {
 public:
  // num_slabs counts slab 0, which is reserved. Throws StartupError when the memory cannot be had.
  KvArena(const KvLayout& layout, int32_t num_slabs, Device& device);

  const KvLayout& layout() const { return layout_; }
  int32_t num_slabs() const { return num_slabs_; }
  // The cache of a layer that owns one.
  LayerKv layer(int index) const;
  // Fills every byte with the pattern of NaN: nothing read before it was written may change a
  // result.
  void Poison();

 private:
  KvLayout layout_;
  int32_t num_slabs_;
  Device& device_;
  DeviceMemory memory_;
};

}  // namespace lapidary

#endif  // LAPIDARY_KV_ARENA_H_
