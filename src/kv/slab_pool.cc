#include "kv/slab_pool.h"

namespace lapidary {

SlabPool::SlabPool(const KvLayout& layout, int32_t num_slabs)
    : per_slab_{layout.full_pages_per_slab, layout.sliding_pages_per_slab},
      slabs_(static_cast<size_t>(num_slabs)) {
  CHECK(num_slabs >= 2, "{} slabs", num_slabs);
  for (int32_t slab = 1; slab < num_slabs; ++slab) free_slabs_.insert(slab);
}

std::optional<int32_t> SlabPool::Allocate(Kind kind) {
  CHECK(per_slab(kind) > 0, "this model has no pages of kind {}", static_cast<int>(kind));
  if (partial_[kind].empty()) {
    if (free_slabs_.empty()) return std::nullopt;
    const int32_t taken = *free_slabs_.begin();
    free_slabs_.erase(free_slabs_.begin());
    slabs_[static_cast<size_t>(taken)] = {kind, 0,
                                          std::vector<bool>(static_cast<size_t>(per_slab(kind)))};
    partial_[kind].insert(taken);
  }
  const int32_t index = *partial_[kind].begin();
  Slab& slab = slabs_[static_cast<size_t>(index)];
  int32_t page = 0;
  while (slab.used[static_cast<size_t>(page)]) ++page;
  slab.used[static_cast<size_t>(page)] = true;
  if (++slab.num_used == per_slab(kind)) partial_[kind].erase(index);
  ++used_[kind];
  return index * per_slab(kind) + page;
}

void SlabPool::FreePage(Kind kind, int32_t page) {
  CHECK(per_slab(kind) > 0 && page >= per_slab(kind) &&
            page / per_slab(kind) < static_cast<int32_t>(slabs_.size()),
        "page {} of kind {}", page, static_cast<int>(kind));
  const int32_t index = page / per_slab(kind);
  Slab& slab = slabs_[static_cast<size_t>(index)];
  CHECK(slab.kind == kind && slab.used[static_cast<size_t>(page % per_slab(kind))],
        "page {} is not taken", page);
  slab.used[static_cast<size_t>(page % per_slab(kind))] = false;
  partial_[kind].insert(index);
  --used_[kind];
  if (--slab.num_used > 0) return;
  slab.kind = kNone;
  partial_[kind].erase(index);
  free_slabs_.insert(index);
}

std::optional<FullPage> SlabPool::AllocateFull() {
  const auto page = Allocate(kFull);
  return page ? std::optional(FullPage{*page}) : std::nullopt;
}

std::optional<SlidingPage> SlabPool::AllocateSliding() {
  const auto page = Allocate(kSliding);
  return page ? std::optional(SlidingPage{*page}) : std::nullopt;
}

void SlabPool::Free(FullPage page) { FreePage(kFull, static_cast<int32_t>(page)); }
void SlabPool::Free(SlidingPage page) { FreePage(kSliding, static_cast<int32_t>(page)); }

}  // namespace lapidary
