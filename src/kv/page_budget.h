// PageBudget: gives out pages so that every page that was promised can be had, whatever the others
// do. A promise is a number of pages a sequence may still ask for. The rule, over slabs:
//
//   live slabs of both kinds + slabs for promises beyond the holes in live slabs <= all slabs
//
// where a hole is a page of a live slab that nobody uses; the prefix cache's idle pages count as
// holes and are evicted when needed. Taking, returning and promising keep the rule true. One
// thread.
#ifndef LAPIDARY_KV_PAGE_BUDGET_H_
#define LAPIDARY_KV_PAGE_BUDGET_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "kv/layout.h"
#include "kv/prefix_cache.h"
#include "kv/slab_pool.h"

namespace lapidary {

// The memory formula: what the start-up plan, `plan`, Submit and admission count with.
class KvFormula {
 public:
  // max_drafts: the largest draft length k. A sequence touches window + 2k + 1 sliding positions at
  // a time: acceptance is known a step late.
  KvFormula(const KvLayout& layout, int max_drafts) : layout_(layout), max_drafts_(max_drafts) {}
  // Positions that a sequence of this length may write, rejected drafts included.
  int Positions(int num_tokens) const { return num_tokens + 2 * max_drafts_ + 1; }
  // The most pages it holds at a time.
  PageCount Pages(int num_tokens) const;
  int64_t Slabs(PageCount pages) const;
  int64_t SlabsFor(int num_tokens) const { return Slabs(Pages(num_tokens)); }

 private:
  KvLayout layout_;
  int max_drafts_;
};

class PageBudget {
 public:
  PageBudget(SlabPool& pool, PrefixCache& cache) : pool_(pool), cache_(cache) {}

  // Whether the rule would hold with these promises on top.
  bool Fits(PageCount more) const { return SlabsWith(more) <= pool_.num_slabs(); }
  // Changes the sum of all promises.
  void Promise(PageCount change);
  PageCount promised() const { return promised_; }

  // A page out of a promise; the caller then lowers it. Fails only by an injected fault.
  template <typename Page>
  std::optional<Page> TakePromised();
  // A page beyond all promises, if the rule holds after it. `evicts`: at the cost of idle pages.
  template <typename Page>
  std::optional<Page> TakeSpare(bool evicts);

  // For tests: makes the next takes fail where it says so.
  void SetFault(std::function<bool()> fault) { fault_ = std::move(fault); }
  void CheckInvariants() const;

 private:
  int64_t SlabsWith(PageCount more) const;
  int64_t Holes(PageKind kind) const {
    return pool_.num_live_slabs(kind) * pool_.per_slab(kind) - pool_.num_live_pages(kind);
  }
  template <typename Page>
  std::optional<Page> TakeOpening();

  SlabPool& pool_;
  PrefixCache& cache_;
  PageCount promised_;
  std::function<bool()> fault_;
};

}  // namespace lapidary

#endif  // LAPIDARY_KV_PAGE_BUDGET_H_
