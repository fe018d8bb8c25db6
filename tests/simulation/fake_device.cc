#include "fake_device.h"

#include <algorithm>

#include "ops/batch.h"

namespace lapidary {
namespace {

uint32_t Mix(uint32_t mark, int32_t token) {
  uint64_t x = (uint64_t{mark} << 32 | static_cast<uint32_t>(token)) * 0x9e3779b97f4a7c15u;
  x ^= x >> 31;
  return static_cast<uint32_t>(x * 0xbf58476d1ce4e5b9u >> 32) | 1u;
}

}  // namespace

FakeDevice::FakeDevice(const KvLayout& layout, const SlabPool& pool, const SchedulerLimits& limits,
                       bool greedy)
    : layout_(layout),
      pool_(pool),
      is_greedy_(greedy),
      max_drafts_(limits.max_drafts),
      cells_(Scheduler::TableCells(limits)),
      slots_(static_cast<size_t>(limits.max_running)) {
  for (const PageKind kind : {PageKind::kFull, PageKind::kSliding}) {
    const auto k = static_cast<size_t>(kind);
    tables_[k].assign(slots_.size() * static_cast<size_t>(cells_), -1);
    pages_[k].assign(static_cast<size_t>(pool.num_pages(kind) * kPageTokens), 0);
  }
  scratch_.assign(static_cast<size_t>(Scheduler::MaxScratchPages(layout, limits) * kPageTokens), 0);
}

uint32_t* FakeDevice::Cell(PageKind kind, int32_t slot, int32_t position) {
  return const_cast<uint32_t*>(static_cast<const FakeDevice*>(this)->Cell(kind, slot, position));
}

const uint32_t* FakeDevice::Cell(PageKind kind, int32_t slot, int32_t position) const {
  const auto k = static_cast<size_t>(kind);
  const int32_t cell = position / kPageTokens;
  CHECK(cell < cells_, "position {} in slot {}", position, slot);
  const int32_t page = tables_[k][static_cast<size_t>(slot * cells_ + cell)];
  if (page < 0) return nullptr;
  CHECK(page > 0, "page 0 in slot {}", slot);
  return &pages_[k].at(static_cast<size_t>(page * kPageTokens + position % kPageTokens));
}

void FakeDevice::Push(Slot& slot, int32_t token) {
  slot.marks.push_back(Mix(slot.marks.empty() ? slot.salt : slot.marks.back(), token));
  slot.tokens.push_back(token);
}

void FakeDevice::Start(const SlotStart& start) {
  Slot& slot = slots_.at(static_cast<size_t>(start.slot));
  CHECK(slot.tokens.empty(), "slot {} is in use", start.slot);
  slot.max_length = start.params->max_length;
  slot.salt = start.params->choice;  // the simulator keeps the salt there
  for (const int32_t token : start.tokens) Push(slot, token);
}

void FakeDevice::Apply(const StepPlan& plan) {
  for (const int32_t slot : plan.freed_slots) {
    CHECK(!slots_.at(static_cast<size_t>(slot)).tokens.empty(), "slot {} is free already", slot);
    slots_.at(static_cast<size_t>(slot)) = {};
    for (auto& table : tables_) std::fill_n(table.begin() + ptrdiff_t{slot} * cells_, cells_, -1);
  }
  for (const SlotStart& start : plan.starts) Start(start);
  for (const TableChange& change : plan.table_changes) {
    CHECK(change.cell >= 0 && change.cell < cells_, "cell {} of slot {}", change.cell, change.slot);
    tables_[static_cast<size_t>(change.kind)].at(
        static_cast<size_t>(change.slot * cells_ + change.cell)) = change.page;
  }
}

void FakeDevice::CheckTables() const {
  for (const PageKind kind : {PageKind::kFull, PageKind::kSliding}) {
    const std::vector<int32_t>& table = tables_[static_cast<size_t>(kind)];
    num_users_.assign(static_cast<size_t>(pool_.num_pages(kind)), 0);
    int64_t num_pages = 0;
    for (size_t i = 0; i < table.size(); ++i) {
      if (table[i] == -1) continue;
      CHECK(!slots_[i / static_cast<size_t>(cells_)].tokens.empty(),
            "page {} in the table of the free slot {}", table[i], i / static_cast<size_t>(cells_));
      num_pages += num_users_.at(static_cast<size_t>(table[i]))++ == 0;
    }
    for (const int32_t page : table) {
      if (page == -1) continue;
      const int32_t users = kind == PageKind::kFull ? pool_.num_users(FullPage{page})
                                                    : pool_.num_users(SlidingPage{page});
      CHECK(users == num_users_[static_cast<size_t>(page)], "page {} of kind {}: {} users, {}",
            page, static_cast<int>(kind), num_users_[static_cast<size_t>(page)], users);
    }
    CHECK(num_pages == pool_.num_live_pages(kind), "{} pages of kind {} in tables, {} in use",
          num_pages, static_cast<int>(kind), pool_.num_live_pages(kind));
  }
}

StepNews FakeDevice::Run(const StepPlan& plan, std::mt19937_64& rng) {
  Apply(plan);
  CheckTables();
  StepNews news;
  news.number = plan.number;
  for (const PlannedRows& planned : plan.rows) news.rows.push_back(Draw(planned, rng));
  // Windows come into scratch before anything is stored.
  std::vector<Row> rows;
  int32_t scratch_pages = 1;
  for (size_t i = 0; i < plan.rows.size(); ++i)
    AddRows(plan.rows[i], news.rows[i], rows, scratch_pages);
  for (const Row& row : rows) Store(row);
  for (const Row& row : rows) CheckReads(row, rng);
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    const PlannedRows& planned = plan.rows[i];
    if (!planned.samples) continue;
    Slot& slot = slots_[static_cast<size_t>(planned.slot)];
    for (const int32_t token : news.rows[i].tokens) Push(slot, token);
    slot.num_drafts = planned.num_new_drafts;
    // The drafter reads pages up to the newest token, a window that ends before it.
    if (slot.num_drafts > 0)
      CheckReads({planned.slot, static_cast<int32_t>(slot.tokens.size()) - 2, 0, 0, 0}, rng);
  }
  return news;
}

void FakeDevice::Spoil(int32_t slot) {
  for (const PageKind kind : {PageKind::kFull, PageKind::kSliding})
    for (int32_t cell = 0; cell < cells_; ++cell) {
      const auto k = static_cast<size_t>(kind);
      const int32_t page = tables_[k][static_cast<size_t>(slot * cells_ + cell)];
      if (page < 0 || std::count(tables_[k].begin(), tables_[k].end(), page) != 1) continue;
      std::fill_n(pages_[k].begin() + ptrdiff_t{page} * kPageTokens, kPageTokens, 0u);
    }
}

RowsNews FakeDevice::Draw(const PlannedRows& planned, std::mt19937_64& rng) const {
  RowsNews news;
  if (!planned.samples) return news;
  const Slot& slot = slots_.at(static_cast<size_t>(planned.slot));
  news.num_drafted = planned.decode ? planned.num_rows - 1 : 0;
  auto count = static_cast<int>(1 + rng() % static_cast<uint64_t>(news.num_drafted + 1));
  count = std::min(count, slot.max_length - static_cast<int>(slot.tokens.size()));
  uint32_t mark = slot.marks.back();
  for (int i = 0; i < count; ++i) {
    news.tokens.push_back(static_cast<int32_t>(is_greedy_ ? mark / 7 % 3 : rng() % 3));
    mark = Mix(mark, news.tokens.back());
  }
  news.num_accepted = std::max(0, count - 1);
  return news;
}

void FakeDevice::AddRows(const PlannedRows& planned, const RowsNews& drawn, std::vector<Row>& rows,
                         int32_t& scratch_pages) {
  Slot& slot = slots_.at(static_cast<size_t>(planned.slot));
  CHECK(!slot.tokens.empty(), "rows of the empty slot {}", planned.slot);
  const auto length = static_cast<int32_t>(slot.tokens.size());
  if (planned.decode) {
    CHECK(planned.num_rows - 1 <= slot.num_drafts, "{} rows, {} drafts", planned.num_rows,
          slot.num_drafts);
    // An accepted draft is the token drawn before it; rejected ones leave marks of their own
    // behind.
    uint32_t mark = slot.marks.back();
    CheckWindow(planned.slot, length - 1);
    for (int32_t i = 0; i < planned.num_rows; ++i) {
      if (i > 0)
        mark = Mix(mark, i <= drawn.num_accepted ? drawn.tokens[static_cast<size_t>(i - 1)] : 1000);
      rows.push_back({planned.slot, length - 1 + i, mark, 0, 0});
    }
    return;
  }
  CHECK(planned.first_position + planned.num_rows <= length, "chunk to {} of {}",
        planned.first_position + planned.num_rows, length);
  const int32_t first_cell = BatchBuilder::FirstCell(layout_.window, planned.first_position);
  const int32_t first_page = scratch_pages;
  if (layout_.sliding_page_bytes > 0) {
    scratch_pages +=
        BatchBuilder::ScratchPages(layout_.window, planned.first_position, planned.num_rows);
    CHECK(static_cast<size_t>(scratch_pages) * kPageTokens <= scratch_.size(), "{} scratch pages",
          scratch_pages);
    for (size_t i = 0; i < planned.window_pages.size(); ++i) {
      const auto page = static_cast<int32_t>(planned.window_pages[i]);
      CHECK(page > 0, "window page {} is missing", i);
      std::copy_n(&pages_[1].at(static_cast<size_t>(page * kPageTokens)), kPageTokens,
                  &scratch_[(static_cast<size_t>(first_page) + i) * kPageTokens]);
    }
  }
  for (int32_t p = planned.first_position; p < planned.first_position + planned.num_rows; ++p)
    rows.push_back({planned.slot, p, slot.marks[static_cast<size_t>(p)], first_page, first_cell});
}

// A sequence that decodes at `position` keeps no sliding page from before its window. The plan did
// not know how many drafts of the step before were accepted.
void FakeDevice::CheckWindow(int32_t slot, int32_t position) const {
  const int32_t begin = position + 1 - max_drafts_ - layout_.window;
  const std::vector<int32_t>& table = tables_[static_cast<size_t>(PageKind::kSliding)];
  for (int32_t cell = 0; cell < begin / kPageTokens; ++cell)
    CHECK(table[static_cast<size_t>(slot * cells_ + cell)] == -1,
          "slot {} at {} keeps the sliding page of cell {}", slot, position, cell);
}

int32_t FakeDevice::PageAt(PageKind kind, const Row& row) const {
  return tables_[static_cast<size_t>(kind)]
                [static_cast<size_t>(row.slot * cells_ + row.position / kPageTokens)];
}

// Nobody writes where another reads, or into what the prefix cache keeps.
template <typename Page>
void FakeDevice::CheckIsOwn(Page page) const {
  CHECK(pool_.num_users(page) == 1 && !pool_.is_cached(page), "page {} is written with {} users{}",
        static_cast<int32_t>(page), pool_.num_users(page),
        pool_.is_cached(page) ? " and the cache" : "");
}

void FakeDevice::Store(const Row& row) {
  if (layout_.full_page_bytes > 0) {
    uint32_t* full = Cell(PageKind::kFull, row.slot, row.position);
    CHECK(full != nullptr, "no full page for position {} of slot {}", row.position, row.slot);
    CheckIsOwn(FullPage{PageAt(PageKind::kFull, row)});
    *full = row.mark;
  }
  if (layout_.sliding_page_bytes == 0) return;
  uint32_t* sliding = Cell(PageKind::kSliding, row.slot, row.position);
  CHECK(row.scratch_page > 0 || sliding != nullptr, "no sliding page for position {} of slot {}",
        row.position, row.slot);
  if (sliding != nullptr) {
    CheckIsOwn(SlidingPage{PageAt(PageKind::kSliding, row)});
    *sliding = row.mark;
  }
  if (row.scratch_page > 0)
    scratch_[static_cast<size_t>((row.scratch_page + row.position / kPageTokens - row.first_cell) *
                                     kPageTokens +
                                 row.position % kPageTokens)] = row.mark;
}

// The history of a row: the ends of every page, and places at random. Only marks of the tokens
// themselves: what a draft row sees of other drafts is its own business.
void FakeDevice::CheckReads(const Row& row, std::mt19937_64& rng) const {
  const Slot& slot = slots_[static_cast<size_t>(row.slot)];
  const auto known = static_cast<int32_t>(slot.marks.size());
  const auto check = [&](PageKind kind, int32_t position) {
    if (position >= known) return;
    const uint32_t* cell = Cell(kind, row.slot, position);
    if (kind == PageKind::kSliding && row.scratch_page > 0)
      cell = &scratch_[static_cast<size_t>(
          (row.scratch_page + position / kPageTokens - row.first_cell) * kPageTokens +
          position % kPageTokens)];
    CHECK(cell != nullptr && *cell == slot.marks[static_cast<size_t>(position)],
          "slot {} at {} reads position {} of kind {}: {}", row.slot, row.position, position,
          static_cast<int>(kind), cell == nullptr ? "no page" : "another history");
  };
  // Chunk rows share most of their history: a few of them look.
  if (row.scratch_page > 0 && row.position % 16 != 15 && rng() % 16 != 0) return;
  const int32_t last = std::min(row.position, known - 1);
  if (layout_.full_page_bytes > 0) {
    for (int32_t p = kPageTokens - 1; p < last; p += kPageTokens) check(PageKind::kFull, p);
    check(PageKind::kFull, last);
    check(PageKind::kFull, static_cast<int32_t>(rng() % static_cast<uint64_t>(last + 1)));
  }
  if (layout_.sliding_page_bytes == 0) return;
  const int32_t begin = std::max(0, row.position - layout_.window + 1);
  if (begin > last) return;
  for (int32_t p = begin | (kPageTokens - 1); p < last; p += kPageTokens)
    check(PageKind::kSliding, p);
  check(PageKind::kSliding, begin);
  check(PageKind::kSliding, last);
  check(PageKind::kSliding,
        begin + static_cast<int32_t>(rng() % static_cast<uint64_t>(last - begin + 1)));
}

}  // namespace lapidary
