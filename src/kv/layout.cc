#include "kv/layout.h"

#include <algorithm>

namespace lapidary {
namespace {

// The smallest number of sliding pages that is a whole number of full pages; 1 if none is small
// enough.
int SlidingPagesPerSlab(int64_t sliding_bytes, int64_t full_bytes) {
  for (int n = 1; n <= kMaxSlabPages; ++n)
    if (n * sliding_bytes % full_bytes == 0) return n;
  return 1;
}

}  // namespace

KvLayout KvLayout::Make(const std::vector<KvLayerShape>& layers, int window, DType dtype) {
  KvLayout layout;
  layout.dtype = dtype;
  layout.window = window;
  for (const KvLayerShape& layer : layers) {
    LayerPlace place{layer.full, layer.num_kv_heads, layer.head_dim, layer.fold_columns, -1};
    if (layer.owns_kv) {
      int64_t& page_bytes = layer.full ? layout.full_page_bytes : layout.sliding_page_bytes;
      place.offset = page_bytes;
      page_bytes += int64_t{kPageTokens} * layer.num_kv_heads *
                    KvRowColumns(layer.head_dim, layer.fold_columns) * SizeOf(dtype);
    }
    layout.layers.push_back(place);
  }
  const int64_t full = layout.full_page_bytes, sliding = layout.sliding_page_bytes;
  CHECK(full > 0 || sliding > 0, "a model without any KV layer");
  if (sliding == 0) {
    layout.slab_bytes = full;
    layout.full_pages_per_slab = 1;
  } else if (full == 0) {
    layout.slab_bytes = sliding;
    layout.sliding_pages_per_slab = 1;
  } else {
    layout.sliding_pages_per_slab = SlidingPagesPerSlab(sliding, full);
    // A full page larger than a slab of sliding pages: the slab is then one full page.
    layout.slab_bytes = std::max(layout.sliding_pages_per_slab * sliding, full);
    layout.sliding_pages_per_slab = static_cast<int>(layout.slab_bytes / sliding);
    layout.full_pages_per_slab = static_cast<int>(layout.slab_bytes / full);
    layout.unused_slab_bytes = layout.slab_bytes - layout.full_pages_per_slab * full;
  }
  return layout;
}

}  // namespace lapidary
