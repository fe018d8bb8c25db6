// SlabPool: which page is whose. Counting only, no bytes: page id / pages per slab is its slab. A
// page is live while sequences use it; the prefix cache may keep it beyond that (cached, idle);
// otherwise it is free. A slab belongs to one kind while any of its pages is not free. One thread.
#ifndef LAPIDARY_KV_SLAB_POOL_H_
#define LAPIDARY_KV_SLAB_POOL_H_

#include <cstdint>
#include <optional>
#include <set>
#include <vector>

#include "kv/layout.h"

namespace lapidary {

enum class PageKind : uint8_t { kFull, kSliding };

constexpr PageKind KindOf(FullPage) { return PageKind::kFull; }
constexpr PageKind KindOf(SlidingPage) { return PageKind::kSliding; }

// Numbers of pages of both kinds.
struct PageCount {
  int64_t full = 0, sliding = 0;
  int64_t& of(PageKind kind) { return kind == PageKind::kFull ? full : sliding; }
  int64_t of(PageKind kind) const { return kind == PageKind::kFull ? full : sliding; }
};

class SlabPool {
 public:
  // num_slabs counts slab 0, whose pages are reserved and never given out.
  SlabPool(const KvLayout& layout, int32_t num_slabs);

  // A free page of a slab of this kind that has a live page; nothing if there is none.
  template <typename Page>
  std::optional<Page> TakeFromLiveSlab() {
    return Wrap<Page>(TakeFrom(kind_of<Page>(), Of(kind_of<Page>()).live_partial));
  }
  // A free page of a slab of this kind without live pages, or of a free slab.
  template <typename Page>
  std::optional<Page> TakeFromIdleSlab() {
    return Wrap<Page>(TakeIdle(kind_of<Page>()));
  }
  // One more or one less sequence uses a page that is not free; without users and cache it is free.
  template <typename Page>
  void AddUser(Page page) {
    ChangeUsers(KindOf(page), static_cast<int32_t>(page), +1);
  }
  template <typename Page>
  void RemoveUser(Page page) {
    ChangeUsers(KindOf(page), static_cast<int32_t>(page), -1);
  }
  template <typename Page>
  void SetCached(Page page, bool cached) {
    ChangeCached(KindOf(page), static_cast<int32_t>(page), cached);
  }
  template <typename Page>
  int32_t num_users(Page page) const {
    return At(KindOf(page), static_cast<int32_t>(page)).users;
  }
  template <typename Page>
  bool is_cached(Page page) const {
    return At(KindOf(page), static_cast<int32_t>(page)).cached;
  }
  // An idle page in a slab of this kind that has live pages: what could be freed without opening a
  // slab.
  template <typename Page>
  std::optional<Page> IdleInLiveSlab() const {
    return Wrap<Page>(FindIdle(kind_of<Page>()));
  }

  int32_t num_slabs() const { return static_cast<int32_t>(slabs_.size()) - 1; }
  int32_t num_free_slabs() const { return static_cast<int32_t>(free_slabs_.size()); }
  int32_t per_slab(PageKind kind) const { return Of(kind).per_slab; }
  int32_t num_pages(PageKind kind) const {  // ids are below this
    return static_cast<int32_t>(Of(kind).pages.size());
  }
  int64_t num_slabs(PageKind kind) const { return Of(kind).slabs; }  // with a page that is not free
  int64_t num_live_slabs(PageKind kind) const { return Of(kind).live_slabs; }
  int64_t num_live_pages(PageKind kind) const { return Of(kind).live_pages; }
  int64_t num_idle_pages(PageKind kind) const { return Of(kind).idle_pages; }
  // Recounts everything. For tests.
  void CheckInvariants() const;

 private:
  struct Page {
    int32_t users = 0;
    bool cached = false;
    bool free() const { return users == 0 && !cached; }
    bool idle() const { return users == 0 && cached; }
  };
  struct Slab {
    int8_t kind = -1;   // PageKind, -1: free
    uint8_t lists = 0;  // those it is in
    int32_t live = 0, idle = 0;
  };
  struct Kind {
    int32_t per_slab = 0;
    std::vector<Page> pages;
    int64_t slabs = 0, live_slabs = 0, live_pages = 0, idle_pages = 0;
    std::set<int32_t> live_partial, idle_partial;  // slabs with a free page, by liveness
    std::set<int32_t> mixed;                       // slabs with live and idle pages
  };
  template <typename P>
  static constexpr PageKind kind_of() {
    return KindOf(P{});
  }
  template <typename P>
  static std::optional<P> Wrap(std::optional<int32_t> page) {
    return page ? std::optional(P{*page}) : std::nullopt;
  }
  Kind& Of(PageKind kind) { return kinds_[static_cast<size_t>(kind)]; }
  const Kind& Of(PageKind kind) const { return kinds_[static_cast<size_t>(kind)]; }
  const Page& At(PageKind kind, int32_t page) const;
  Page& At(PageKind kind, int32_t page) {
    return const_cast<Page&>(static_cast<const SlabPool*>(this)->At(kind, page));
  }
  std::optional<int32_t> TakeFrom(PageKind kind, const std::set<int32_t>& slabs);
  std::optional<int32_t> TakeIdle(PageKind kind);
  std::optional<int32_t> FindIdle(PageKind kind) const;
  void ChangeUsers(PageKind kind, int32_t page, int32_t change);
  void ChangeCached(PageKind kind, int32_t page, bool cached);
  // Applies `change` to the page and brings every count in line.
  template <typename Change>
  void Update(PageKind kind, int32_t page, const Change& change);
  void Refile(PageKind kind, int32_t slab);

  Kind kinds_[2];
  std::vector<Slab> slabs_;
  std::set<int32_t> free_slabs_;
};

}  // namespace lapidary

#endif  // LAPIDARY_KV_SLAB_POOL_H_
