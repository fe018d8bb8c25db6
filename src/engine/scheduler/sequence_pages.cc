// The scheduler's part that moves pages between a sequence, the budget and the prefix cache.
#include <algorithm>
#include <map>
#include <set>
#include <span>
#include <type_traits>

#include "base/check.h"
#include "engine/scheduler/sequence.h"
#include "ops/batch.h"

namespace lapidary {

int Scheduler::ReservedTokens(const Sequence& sequence) const {
  // Each retraction reserves more; the last one all, so that it is the last.
  if (sequence.retractions >= kMaxRetractions) return sequence.spec.max_tokens;
  const int64_t output = sequence.retractions == 0
                             ? reserved_output_
                             : int64_t{limits_.reserved_output} << sequence.retractions;
  return static_cast<int>(std::min<int64_t>(
      sequence.spec.max_tokens,
      (sequence.retractions == 0 ? sequence.num_prompt : sequence.length()) + output));
}

// Sliding pages of its window that others pay for: it pays when they leave.
int64_t Scheduler::NumUnpaid(const Sequence& sequence) const {
  int64_t count = 0;
  for (int cell = sequence.window_begin; cell < sequence.sliding_end; ++cell) {
    const SlidingPage page = sequence.sliding[static_cast<size_t>(cell)];
    count += page != SlidingPage::kNone && payers_[static_cast<size_t>(page)] != &sequence;
  }
  return count;
}

// Brings its promise in line with what it holds. Also beyond its reservation it keeps one for each
// page that it may have to pay for: whoever leaves that page is promised another in its place.
void Scheduler::Rebudget(Sequence& sequence) {
  const PageCount held{sequence.num_full, sequence.num_paid}, least{0, NumUnpaid(sequence)};
  PageCount change;
  for (const PageKind kind : {PageKind::kFull, PageKind::kSliding}) {
    const int64_t wanted =
        sequence.runs() ? std::max(least.of(kind), sequence.reserved.of(kind) - held.of(kind)) : 0;
    change.of(kind) = wanted - sequence.promised.of(kind);
    sequence.promised.of(kind) = wanted;
  }
  budget_.Promise(change);
}

template <typename Page>
std::optional<Page> Scheduler::TakePage(Sequence& sequence) {
  constexpr PageKind kind = KindOf(Page{});
  const int64_t kept = kind == PageKind::kSliding ? NumUnpaid(sequence) : 0;
  if (sequence.promised.of(kind) > kept) return budget_.TakePromised<Page>();
  return budget_.TakeSpare<Page>(true);
}

// A wrong page is somebody else's text: every cell is checked when it enters a table.
template <typename Page>
void Scheduler::SetPage(Sequence& sequence, int cell, Page page) {
  if (page != Page::kNone)
    CHECK(pool_.num_users(page) > 0, "page {} of sequence {}, cell {} has no user",
          static_cast<int32_t>(page), sequence.id(), cell);
  const auto i = static_cast<size_t>(cell);
  if constexpr (std::is_same_v<Page, FullPage>)
    sequence.full.at(i) = page;
  else
    sequence.sliding.at(i) = page;
  if (sequence.runs())
    plan_.table_changes.push_back({KindOf(page), sequence.slot, cell, static_cast<int32_t>(page)});
}

bool Scheduler::TakeFull(Sequence& sequence, int end_cell) {
  if (layout_.full_page_bytes == 0) return true;
  for (; sequence.num_full < end_cell; Rebudget(sequence)) {
    const auto page = TakePage<FullPage>(sequence);
    if (!page) return false;
    SetPage(sequence, sequence.num_full, *page);
    ++sequence.num_full;
  }
  return true;
}

// The cells from sliding_end on, none before begin_cell.
bool Scheduler::TakeSliding(Sequence& sequence, int begin_cell, int end_cell) {
  if (layout_.sliding_page_bytes == 0) return true;
  sequence.sliding_end = std::max(sequence.sliding_end, begin_cell);
  for (; sequence.sliding_end < end_cell; Rebudget(sequence)) {
    const auto page = TakePage<SlidingPage>(sequence);
    if (!page) return false;
    SetPage(sequence, sequence.sliding_end, *page);
    Pay(sequence, *page);
    ++sequence.sliding_end;
  }
  return true;
}

// Pages for the prefix cache alone: windows worth keeping at the cost of older ones, the rest only
// while slabs are free. They are let go when they have been registered.
void Scheduler::TakeSpareSliding(Sequence& sequence, int begin_cell, int end_cell) {
  if (layout_.sliding_page_bytes == 0 || !sequence.spec.caches) return;
  for (const bool kept : {true, false})
    for (int cell = begin_cell; cell < end_cell; ++cell) {
      if (sequence.sliding[static_cast<size_t>(cell)] != SlidingPage::kNone ||
          sequence.keeps(cell) != kept)
        continue;
      const auto page = budget_.TakeSpare<SlidingPage>(kept);
      if (page) SetPage(sequence, cell, *page);
    }
}

// Unless somebody does already.
void Scheduler::Pay(Sequence& sequence, SlidingPage page) {
  Sequence*& payer = payers_.at(static_cast<size_t>(page));
  if (payer != nullptr) return;
  payer = &sequence;
  ++sequence.num_paid;
}

// The cell does not hold the page any more.
void Scheduler::StopPaying(Sequence& sequence, int cell, SlidingPage page) {
  Sequence*& payer = payers_.at(static_cast<size_t>(page));
  if (payer != &sequence) return;
  payer = nullptr;
  --sequence.num_paid;
  if (pool_.num_users(page) == 1) return;
  // Users of a page hold it in the same cell: it is the same prefix.
  const auto i = static_cast<size_t>(cell);
  for (Sequence* other : running_) {
    if (other->sliding.size() <= i || other->sliding[i] != page) continue;
    Pay(*other, page);
    return Rebudget(*other);
  }
  CHECK(false, "sliding page {} has unknown users", static_cast<int32_t>(page));
}

void Scheduler::ReleaseSlidingBelow(Sequence& sequence, int end_cell) {
  for (; sequence.sliding_begin < end_cell; ++sequence.sliding_begin) {
    const int cell = sequence.sliding_begin;
    const SlidingPage page = sequence.sliding[static_cast<size_t>(cell)];
    if (page == SlidingPage::kNone) continue;
    SetPage(sequence, cell, SlidingPage::kNone);
    StopPaying(sequence, cell, page);
    if (cell < static_cast<int>(sequence.nodes.size()))
      cache_.LeaveSliding(sequence.nodes[static_cast<size_t>(cell)]);
    else
      pool_.RemoveUser(page);
  }
}

// No later row reads a sliding key below first_position.
void Scheduler::AdvanceWindow(Sequence& sequence, int first_position) {
  if (layout_.sliding_page_bytes == 0) return;
  const int cell = std::max(0, first_position) / kPageTokens;
  if (cell <= sequence.window_begin) return;
  sequence.window_begin = cell;
  ReleaseSlidingBelow(sequence, std::min(cell, sequence.sliding_end));
  Rebudget(sequence);
}

// Hands the complete pages of cells [0, num_cells) to the prefix cache; they stay in use.
void Scheduler::RegisterPages(Sequence& sequence, int num_cells) {
  if (!sequence.spec.caches) return;
  while (static_cast<int>(sequence.nodes.size()) < num_cells) {
    const auto cell = sequence.nodes.size();
    FullPage full = sequence.full[cell];
    SlidingPage sliding = sequence.sliding[cell];
    PrefixNode* parent = cell == 0 ? nullptr : sequence.nodes.back();
    sequence.nodes.push_back(
        cache_.Register(sequence.spec.salt, parent,
                        std::span(sequence.tokens).subspan(cell * kPageTokens, kPageTokens), full,
                        sliding, sequence.keeps(static_cast<int>(cell))));
    if (full != sequence.full[cell]) SetPage(sequence, static_cast<int>(cell), full);
    if (sliding != sequence.sliding[cell]) {
      // Its own is gone; it has another's now, who pays for it.
      const SlidingPage own = sequence.sliding[cell];
      SetPage(sequence, static_cast<int>(cell), sliding);
      if (payers_[static_cast<size_t>(own)] == &sequence) {
        payers_[static_cast<size_t>(own)] = nullptr;
        --sequence.num_paid;
      }
      Rebudget(sequence);
    }
  }
}

// At the start of a plan: what earlier plans computed becomes visible to other sequences, and spare
// pages go. A decoding sequence gives only pages whose step is committed: its rows were looked at.
void Scheduler::Settle(Sequence& sequence) {
  if (sequence.failed) return;
  const int known = sequence.in_prefill() ? sequence.prefilled : sequence.length() - 1;
  RegisterPages(sequence, known / kPageTokens);
  ReleaseSlidingBelow(sequence, std::min(sequence.window_begin, sequence.sliding_end));
}

void Scheduler::ReleaseAll(Sequence& sequence) {
  const int32_t slot = std::exchange(sequence.slot, -1);
  free_slots_.push_back(slot);
  by_slot_[static_cast<size_t>(slot)] = nullptr;
  // What this plan did with the slot so far is void.
  std::erase_if(plan_.table_changes, [slot](const auto& change) { return change.slot == slot; });
  if (std::erase_if(plan_.starts, [slot](const auto& start) { return start.slot == slot; }) == 0)
    plan_.freed_slots.push_back(slot);
  if (!sequence.failed) {
    // What was planned is computed before anybody can read it: steps run in order.
    const int known = sequence.in_prefill() ? sequence.prefilled : sequence.length() - 1;
    RegisterPages(sequence, known / kPageTokens);
    const auto end = static_cast<int>(sequence.nodes.size());
    for (int cell = std::max(sequence.sliding_begin,
                             BatchBuilder::FirstCell(layout_.window, end * kPageTokens));
         cell < end; ++cell)
      cache_.Touch(sequence.nodes[static_cast<size_t>(cell)], true);
  }
  ReleaseSlidingBelow(sequence, static_cast<int>(sequence.sliding.size()));
  for (size_t cell = 0; cell < sequence.nodes.size(); ++cell) sequence.full[cell] = FullPage::kNone;
  for (size_t cell = sequence.nodes.size(); cell-- > 0;) cache_.Leave(sequence.nodes[cell]);
  for (FullPage& page : sequence.full)
    if (page != FullPage::kNone) pool_.RemoveUser(std::exchange(page, FullPage::kNone));
  sequence.nodes.clear();
  sequence.num_full = sequence.sliding_begin = sequence.window_begin = sequence.sliding_end = 0;
  sequence.kept_windows.clear();
  Rebudget(sequence);
  may_admit_ = true;
}

void Scheduler::CheckInvariants() const {
  pool_.CheckInvariants();
  cache_.CheckInvariants();
  budget_.CheckInvariants();
  std::map<FullPage, int> full;
  std::map<SlidingPage, int> sliding;
  std::set<int32_t> slots;
  PageCount promised;
  for (const auto& [id, s] : sequences_) {
    promised.full += s->promised.full;
    promised.sliding += s->promised.sliding;
    for (const FullPage page : s->full)
      if (page != FullPage::kNone) ++full[page];
    for (const SlidingPage page : s->sliding)
      if (page != SlidingPage::kNone) ++sliding[page];
    if (s->runs())
      CHECK(slots.insert(s->slot).second && by_slot_.at(static_cast<size_t>(s->slot)) == s.get(),
            "slot {} twice", s->slot);
    else
      CHECK(
          s->promised.full == 0 && s->promised.sliding == 0 && s->num_full == 0 && s->nodes.empty(),
          "sequence {} waits and holds something", id);
    CHECK(std::count(payers_.begin(), payers_.end(), s.get()) == s->num_paid,
          "sequence {} pays for {} pages", id, s->num_paid);
    const int end = layout_.sliding_page_bytes > 0 ? s->sliding_end : 0;
    for (int cell = s->window_begin; cell < end; ++cell) {
      const SlidingPage page = s->sliding[static_cast<size_t>(cell)];
      CHECK(payers_.at(static_cast<size_t>(page)) != nullptr,
            "sequence {}: nobody pays for page {}", id, static_cast<int32_t>(page));
    }
    CHECK(s->overtaken <= kMaxOvertakes, "sequence {} overtaken {} times", id, s->overtaken);
  }
  CHECK(slots.size() + free_slots_.size() == static_cast<size_t>(limits_.max_running),
        "{} slots in use", slots.size());
  CHECK(running_.size() + waiting_.size() == sequences_.size(), "{} live", sequences_.size());
  CHECK(promised.full == budget_.promised().full && promised.sliding == budget_.promised().sliding,
        "{} and {} pages promised", promised.full, promised.sliding);
  for (const auto& [page, users] : full)
    CHECK(pool_.num_users(page) == users, "full page {}", static_cast<int32_t>(page));
  for (const auto& [page, users] : sliding)
    CHECK(pool_.num_users(page) == users, "sliding page {}", static_cast<int32_t>(page));
  CHECK(static_cast<int64_t>(full.size()) == pool_.num_live_pages(PageKind::kFull) &&
            static_cast<int64_t>(sliding.size()) == pool_.num_live_pages(PageKind::kSliding),
        "{} full and {} sliding pages in use", full.size(), sliding.size());
}

}  // namespace lapidary
