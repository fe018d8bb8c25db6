#include "kv/arena.h"

#include "base/checked.h"
#include "base/result.h"

namespace lapidary {

KvArena::KvArena(const KvLayout& layout, int32_t num_slabs, Device& device)
    : layout_(layout), num_slabs_(num_slabs), device_(device) {
  const auto bytes = CheckedMul(layout.slab_bytes, num_slabs);
  CHECK(bytes && num_slabs >= 2, "{} slabs of {} bytes", num_slabs, layout.slab_bytes);
  try {
    memory_ = DeviceMemory(device, *bytes);
  } catch (const StartupError&) {
    throw StartupError(
        fmt::format("cannot reserve {} bytes for the KV cache; use --max-total-tokens or a "
                    "shorter --max-model-len",
                    *bytes));
  }
  // Slab 0 holds page 0 of both kinds: all bytes 0xff read as NaN in f32 and in bf16.
  device.Fill(memory_.data(), 0xff, layout_.slab_bytes);
}

LayerKv KvArena::layer(int index) const {
  const KvLayout::LayerPlace& place = layout_.layers.at(static_cast<size_t>(index));
  CHECK(place.offset >= 0, "layer {} owns no cache", index);
  LayerKv kv;
  kv.base = static_cast<char*>(memory_.data());
  kv.dtype = layout_.dtype;
  kv.num_kv_heads = place.num_kv_heads;
  kv.head_dim = place.head_dim;
  kv.fold_columns = place.fold_columns;
  kv.slab_bytes = layout_.slab_bytes;
  kv.page_bytes = place.full ? layout_.full_page_bytes : layout_.sliding_page_bytes;
  kv.pages_per_slab = place.full ? layout_.full_pages_per_slab : layout_.sliding_pages_per_slab;
  kv.offset = place.offset;
  kv.num_pages = num_slabs_ * kv.pages_per_slab;
  return kv;
}

void KvArena::Poison() { device_.Fill(memory_.data(), 0xff, memory_.bytes()); }

}  // namespace lapidary
