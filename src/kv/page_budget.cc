#include "kv/page_budget.h"

#include <algorithm>

namespace lapidary {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return a <= 0 ? 0 : (a + b - 1) / b; }

}  // namespace

PageCount KvFormula::Pages(int num_tokens) const {
  const int64_t cells = CeilDiv(Positions(num_tokens), kPageTokens);
  // A span of n positions touches one page more at the worst alignment.
  const int64_t span = int64_t{layout_.window} + int64_t{2} * max_drafts_ + 1;
  PageCount pages;
  if (layout_.full_page_bytes > 0) pages.full = cells;
  if (layout_.sliding_page_bytes > 0)
    pages.sliding = std::min(cells, (span + kPageTokens - 2) / kPageTokens + 1);
  return pages;
}

int64_t KvFormula::Slabs(PageCount pages) const {
  int64_t slabs = 0;
  if (pages.full > 0) slabs += CeilDiv(pages.full, layout_.full_pages_per_slab);
  if (pages.sliding > 0) slabs += CeilDiv(pages.sliding, layout_.sliding_pages_per_slab);
  return slabs;
}

int64_t PageBudget::SlabsWith(PageCount more) const {
  int64_t slabs = 0;
  for (const PageKind kind : {PageKind::kFull, PageKind::kSliding}) {
    const int64_t wanted = promised_.of(kind) + more.of(kind) - Holes(kind);
    slabs += pool_.num_live_slabs(kind);
    if (wanted > 0) slabs += CeilDiv(wanted, pool_.per_slab(kind));
  }
  return slabs;
}

void PageBudget::Promise(PageCount change) {
  promised_.full += change.full;
  promised_.sliding += change.sliding;
  CHECK(promised_.full >= 0 && promised_.sliding >= 0, "{} full and {} sliding pages promised",
        promised_.full, promised_.sliding);
}

// From a slab without live pages, evicting until there is one with a free page.
template <typename Page>
std::optional<Page> PageBudget::TakeOpening() {
  auto page = pool_.TakeFromIdleSlab<Page>();
  while (!page && cache_.EvictOne()) {
    page = pool_.TakeFromLiveSlab<Page>();  // the evicted page may have left a hole
    if (!page) page = pool_.TakeFromIdleSlab<Page>();
  }
  return page;
}

template <typename Page>
std::optional<Page> PageBudget::TakePromised() {
  constexpr PageKind kind = KindOf(Page{});
  if (fault_ && fault_()) return std::nullopt;
  CHECK(promised_.of(kind) > 0, "no page of kind {} is promised", static_cast<int>(kind));
  if (const auto page = pool_.TakeFromLiveSlab<Page>()) return page;
  // While the promises exceed the holes they count a slab to be opened; else one more has to fit.
  PageCount one;
  one.of(kind) = Holes(kind) - promised_.of(kind) + 1;
  if (promised_.of(kind) > Holes(kind) || Fits(one)) return TakeOpening<Page>();
  const auto idle = pool_.IdleInLiveSlab<Page>();
  CHECK(idle, "{} promises of kind {}, {} holes, none to be had", promised_.of(kind),
        static_cast<int>(kind), Holes(kind));
  cache_.Evict(*idle);
  return pool_.TakeFromLiveSlab<Page>();
}

template <typename Page>
std::optional<Page> PageBudget::TakeSpare(bool evicts) {
  constexpr PageKind kind = KindOf(Page{});
  if (fault_ && fault_()) return std::nullopt;
  PageCount one;
  one.of(kind) = 1;
  if (!Fits(one)) return std::nullopt;
  if (evicts) {
    Promise(one);
    const auto page = TakePromised<Page>();
    one.of(kind) = -1;
    Promise(one);
    return page;
  }
  if (const auto page = pool_.TakeFromLiveSlab<Page>()) return page;
  // Opening a slab for it must leave room for what is promised.
  one.of(kind) = std::max<int64_t>(Holes(kind) - promised_.of(kind), 0) + 1;
  return Fits(one) ? pool_.TakeFromIdleSlab<Page>() : std::nullopt;
}

template std::optional<FullPage> PageBudget::TakePromised<FullPage>();
template std::optional<SlidingPage> PageBudget::TakePromised<SlidingPage>();
template std::optional<FullPage> PageBudget::TakeSpare<FullPage>(bool);
template std::optional<SlidingPage> PageBudget::TakeSpare<SlidingPage>(bool);

void PageBudget::CheckInvariants() const {
  CHECK(SlabsWith({}) <= pool_.num_slabs(), "{} slabs promised of {}", SlabsWith({}),
        pool_.num_slabs());
}

}  // namespace lapidary
