#include "kv/slab_pool.h"

namespace lapidary {

SlabPool::SlabPool(const KvLayout& layout, int32_t num_slabs)
    : slabs_(static_cast<size_t>(num_slabs)) {
  CHECK(num_slabs >= 2, "{} slabs", num_slabs);
  Of(PageKind::kFull).per_slab = layout.full_pages_per_slab;
  Of(PageKind::kSliding).per_slab = layout.sliding_pages_per_slab;
  for (Kind& kind : kinds_)
    kind.pages.resize(static_cast<size_t>(num_slabs) * static_cast<size_t>(kind.per_slab));
  for (int32_t slab = 1; slab < num_slabs; ++slab) free_slabs_.insert(slab);
}

const SlabPool::Page& SlabPool::At(PageKind kind, int32_t page) const {
  const Kind& k = Of(kind);
  CHECK(page >= k.per_slab && page < static_cast<int32_t>(k.pages.size()),
        "page {} of kind {}, {} pages", page, static_cast<int>(kind), k.pages.size());
  return k.pages[static_cast<size_t>(page)];
}

template <typename Change>
void SlabPool::Update(PageKind kind, int32_t page, const Change& change) {
  Kind& k = Of(kind);
  Page& p = At(kind, page);
  Slab& slab = slabs_[static_cast<size_t>(page / k.per_slab)];
  const bool was_live_slab = slab.live > 0;
  const bool was_live = p.users > 0, was_idle = p.idle();
  change(p);
  const int32_t live = int32_t{p.users > 0} - int32_t{was_live};
  const int32_t idle = int32_t{p.idle()} - int32_t{was_idle};
  slab.live += live;
  slab.idle += idle;
  k.live_pages += live;
  k.idle_pages += idle;
  k.live_slabs += int32_t{slab.live > 0} - int32_t{was_live_slab};
  Refile(kind, page / k.per_slab);
}

// Puts the slab into the lists that its counts ask for.
void SlabPool::Refile(PageKind kind, int32_t index) {
  Kind& k = Of(kind);
  Slab& slab = slabs_[static_cast<size_t>(index)];
  const bool empty = slab.live + slab.idle == 0;
  const bool partial = !empty && slab.live + slab.idle < k.per_slab;
  const bool belongs[] = {partial && slab.live > 0, partial && slab.live == 0,
                          slab.live > 0 && slab.idle > 0, !empty};
  std::set<int32_t>* const lists[] = {&k.live_partial, &k.idle_partial, &k.mixed, &free_slabs_};
  uint8_t now = 0;
  for (size_t i = 0; i < 4; ++i) now |= static_cast<uint8_t>(int{belongs[i]} << i);
  for (size_t i = 0; i < 4; ++i) {
    if (((now ^ slab.lists) >> i & 1) == 0) continue;
    // The free list's bit says "not free", so that a new slab's lists are 0.
    if (belongs[i] != (lists[i] == &free_slabs_))
      lists[i]->insert(index);
    else
      lists[i]->erase(index);
  }
  slab.lists = now;
  k.slabs += int{!empty} - int{slab.kind >= 0};
  slab.kind = empty ? int8_t{-1} : static_cast<int8_t>(kind);
}

// Lowest slab, lowest page: the choice is a function of the state alone.
std::optional<int32_t> SlabPool::TakeFrom(PageKind kind, const std::set<int32_t>& slabs) {
  const Kind& k = Of(kind);
  CHECK(k.per_slab > 0, "this model has no pages of kind {}", static_cast<int>(kind));
  if (slabs.empty()) return std::nullopt;
  int32_t page = *slabs.begin() * k.per_slab;
  while (!k.pages[static_cast<size_t>(page)].free()) ++page;
  Update(kind, page, [](Page& p) { p.users = 1; });
  return page;
}

std::optional<int32_t> SlabPool::TakeIdle(PageKind kind) {
  const Kind& k = Of(kind);
  return TakeFrom(kind, k.idle_partial.empty() ? free_slabs_ : k.idle_partial);
}

std::optional<int32_t> SlabPool::FindIdle(PageKind kind) const {
  const Kind& k = Of(kind);
  if (k.mixed.empty()) return std::nullopt;
  int32_t page = *k.mixed.begin() * k.per_slab;
  while (!k.pages[static_cast<size_t>(page)].idle()) ++page;
  return page;
}

void SlabPool::ChangeUsers(PageKind kind, int32_t page, int32_t change) {
  const Page& p = At(kind, page);
  CHECK(!p.free() && p.users + change >= 0, "page {} of kind {}: {} users {:+}", page,
        static_cast<int>(kind), p.users, change);
  Update(kind, page, [change](Page& changed) { changed.users += change; });
}

void SlabPool::ChangeCached(PageKind kind, int32_t page, bool cached) {
  const Page& p = At(kind, page);
  CHECK(!p.free() && p.cached != cached, "page {} of kind {} is {}cached", page,
        static_cast<int>(kind), cached ? "" : "not ");
  Update(kind, page, [cached](Page& changed) { changed.cached = cached; });
}

void SlabPool::CheckInvariants() const {
  int64_t slabs[2] = {0, 0}, live_slabs[2] = {0, 0}, live[2] = {0, 0}, idle[2] = {0, 0};
  int32_t free = 0;
  for (size_t i = 1; i < slabs_.size(); ++i) {
    const Slab& slab = slabs_[i];
    int32_t used = 0;
    for (size_t kind = 0; kind < 2; ++kind) {
      const auto per_slab = static_cast<size_t>(kinds_[kind].per_slab);
      int32_t of_kind = 0, slab_live = 0;
      for (size_t page = i * per_slab; page < (i + 1) * per_slab; ++page) {
        const Page& p = kinds_[kind].pages[page];
        of_kind += !p.free();
        slab_live += p.users > 0;
        idle[kind] += p.idle();
      }
      live[kind] += slab_live;
      slabs[kind] += of_kind > 0;
      live_slabs[kind] += slab_live > 0;
      used += of_kind;
      CHECK(of_kind == 0 || slab.kind == static_cast<int8_t>(kind), "slab {} of kind {}", i,
            slab.kind);
    }
    CHECK(used == slab.live + slab.idle, "slab {}: {} pages in use", i, used);
    free += used == 0;
  }
  CHECK(free == num_free_slabs(), "{} free slabs, {} counted", num_free_slabs(), free);
  for (const PageKind kind : {PageKind::kFull, PageKind::kSliding}) {
    const auto i = static_cast<size_t>(kind);
    CHECK(slabs[i] == num_slabs(kind) && live_slabs[i] == num_live_slabs(kind) &&
              live[i] == num_live_pages(kind) && idle[i] == num_idle_pages(kind),
          "kind {}: {} live slabs, {} live, {} idle pages", i, live_slabs[i], live[i], idle[i]);
  }
}

}  // namespace lapidary
