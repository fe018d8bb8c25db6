// SlabPool: which page is taken. Counting only, no bytes: ids are positions, so page id / pages per
// slab is its slab. One thread.
#ifndef LAPIDARY_KV_SLAB_POOL_H_
#define LAPIDARY_KV_SLAB_POOL_H_

#include <cstdint>
#include <optional>
#include <set>
#include <vector>

#include "kv/layout.h"

namespace lapidary {

class SlabPool {
 public:
  // num_slabs counts slab 0, whose pages are reserved and never given out.
  SlabPool(const KvLayout& layout, int32_t num_slabs);

  // Nothing when no slab is left. Full pages fill partly used slabs first, lowest id first.
  std::optional<FullPage> AllocateFull();
  std::optional<SlidingPage> AllocateSliding();
  // The page must be taken.
  void Free(FullPage page);
  void Free(SlidingPage page);

  int32_t num_slabs() const {
    return static_cast<int32_t>(slabs_.size()) - 1;
  }  // that can be given out
  int32_t num_free_slabs() const { return static_cast<int32_t>(free_slabs_.size()); }
  int64_t num_full_pages() const { return used_[kFull]; }
  int64_t num_sliding_pages() const { return used_[kSliding]; }

 private:
  enum Kind : uint8_t { kFull, kSliding, kNone };
  struct Slab {
    Kind kind = kNone;
    int32_t num_used = 0;
    std::vector<bool> used;
  };
  std::optional<int32_t> Allocate(Kind kind);
  void FreePage(Kind kind, int32_t page);
  int32_t per_slab(Kind kind) const { return per_slab_[kind]; }

  int32_t per_slab_[2];
  int64_t used_[2] = {0, 0};
  std::vector<Slab> slabs_;
  std::set<int32_t> free_slabs_;
  std::set<int32_t> partial_[2];  // slabs of a kind with a free page
};

}  // namespace lapidary

#endif  // LAPIDARY_KV_SLAB_POOL_H_
