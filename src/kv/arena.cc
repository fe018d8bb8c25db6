#include "kv/arena.h"

#include <sys/mman.h>

#include <cstring>

#include "base/checked.h"
#include "base/result.h"

namespace lapidary {

KvArena::KvArena(const KvLayout& layout, int32_t num_slabs)
    : layout_(layout), num_slabs_(num_slabs) {
  const auto bytes = CheckedMul(layout.slab_bytes, num_slabs);
  CHECK(bytes && num_slabs >= 2, "{} slabs of {} bytes", num_slabs, layout.slab_bytes);
  void* data = mmap(nullptr, static_cast<size_t>(*bytes), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED)
    throw StartupError(
        fmt::format("cannot reserve {} bytes for the KV cache; use --max-total-tokens or a "
                    "shorter --max-model-len",
                    *bytes));
  data_ = static_cast<char*>(data);
  // Slab 0 holds page 0 of both kinds: all bytes 0xff read as NaN in f32 and in bf16.
  std::memset(data_, 0xff, static_cast<size_t>(layout_.slab_bytes));
}

KvArena::~KvArena() { munmap(data_, static_cast<size_t>(layout_.slab_bytes * num_slabs_)); }

LayerKv KvArena::layer(int index) const {
  const KvLayout::LayerPlace& place = layout_.layers.at(static_cast<size_t>(index));
  CHECK(place.offset >= 0, "layer {} owns no cache", index);
  LayerKv kv;
  kv.base = data_;
  kv.dtype = layout_.dtype;
  kv.num_kv_heads = place.num_kv_heads;
  kv.head_dim = place.head_dim;
  kv.slab_bytes = layout_.slab_bytes;
  kv.page_bytes = place.full ? layout_.full_page_bytes : layout_.sliding_page_bytes;
  kv.pages_per_slab = place.full ? layout_.full_pages_per_slab : layout_.sliding_pages_per_slab;
  kv.offset = place.offset;
  kv.num_pages = num_slabs_ * kv.pages_per_slab;
  return kv;
}

void KvArena::Poison() {
  std::memset(data_, 0xff, static_cast<size_t>(layout_.slab_bytes * num_slabs_));
}

}  // namespace lapidary
