#include "engine/scheduler.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/check.h"

namespace lapidary {
namespace {

constexpr int kScoredRows = 64;  // prompt rows with logits a step

int PagesOf(int num_tokens) { return (num_tokens + kPageTokens - 1) / kPageTokens; }

}  // namespace

struct Scheduler::Sequence {
  SequenceId id = 0;
  std::vector<int32_t> tokens;
  int num_prompt = 0, max_tokens = 0;
  bool score_prompt = false;
  int computed = 0;  // tokens with K and V in pages
  int scored = 0;    // prompt rows whose logits were given
  bool running = false, finished = false;
  int64_t reserved_full = 0, reserved_sliding = 0;
  std::vector<FullPage> full;
  std::vector<SlidingPage> sliding;

  int length() const { return static_cast<int>(tokens.size()); }
  bool scoring() const { return score_prompt && scored < num_prompt; }
};

int64_t KvFormula::FullPages(int num_tokens) const {
  return layout_.full_page_bytes == 0 ? 0 : PagesOf(num_tokens);
}

int64_t KvFormula::SlidingPages(int num_tokens) const {
  if (layout_.sliding_page_bytes == 0) return 0;
  // window - 1 + chunk tokens touch one page more at the worst alignment; the window's pages of the
  // step before are returned first.
  const int64_t span = int64_t{layout_.window} - 1 + std::max(chunk_tokens_, kPageTokens);
  return std::min<int64_t>(PagesOf(num_tokens), (span + kPageTokens - 2) / kPageTokens + 1);
}

int64_t KvFormula::Slabs(int64_t full_pages, int64_t sliding_pages) const {
  const auto slabs = [](int64_t pages, int64_t per_slab) {
    return pages == 0 ? 0 : (pages + per_slab - 1) / per_slab;
  };
  return slabs(full_pages, layout_.full_pages_per_slab) +
         slabs(sliding_pages, layout_.sliding_pages_per_slab);
}

Scheduler::Scheduler(const KvLayout& layout, int32_t num_slabs, const SchedulerLimits& limits)
    : layout_(layout),
      limits_(limits),
      formula_(layout, limits.chunk_tokens),
      pool_(layout, num_slabs) {
  CHECK(limits.max_running >= 1 && limits.chunk_tokens >= kPageTokens, "{} running, chunk {}",
        limits.max_running, limits.chunk_tokens);
}

Scheduler::~Scheduler() = default;

int Scheduler::MaxRows(const SchedulerLimits& limits) {
  return limits.chunk_tokens + limits.max_running;
}

int Scheduler::MaxOutputRows(const SchedulerLimits& limits) {
  return kScoredRows + limits.max_running;
}

bool Scheduler::Fits(int num_tokens) const {
  return formula_.SlabsFor(num_tokens) <= pool_.num_slabs();
}

void Scheduler::Add(NewSequence added) {
  CHECK(Fits(added.max_tokens) && !added.prompt.empty(), "{} tokens", added.max_tokens);
  auto sequence = std::make_unique<Sequence>();
  sequence->id = added.id;
  sequence->num_prompt = static_cast<int>(added.prompt.size());
  CHECK(sequence->num_prompt <= added.max_tokens, "prompt of {}", sequence->num_prompt);
  sequence->max_tokens = added.max_tokens;
  sequence->score_prompt = added.score_prompt;
  sequence->tokens = std::move(added.prompt);
  const auto cells = static_cast<size_t>(PagesOf(added.max_tokens));
  sequence->full.assign(cells, FullPage::kNone);
  sequence->sliding.assign(cells, SlidingPage::kNone);
  const int reserved =
      std::min(sequence->max_tokens, sequence->num_prompt + limits_.reserved_output);
  sequence->reserved_full = formula_.FullPages(reserved);
  sequence->reserved_sliding = formula_.SlidingPages(sequence->max_tokens);
  waiting_.push_back(sequence.get());
  CHECK(sequences_.emplace(added.id, std::move(sequence)).second, "sequence {} is live", added.id);
}

void Scheduler::Remove(SequenceId id) {
  const auto found = sequences_.find(id);
  if (found != sequences_.end()) found->second->finished = true;
}

const std::vector<int32_t>& Scheduler::tokens(SequenceId id) const {
  return sequences_.at(id)->tokens;
}

int Scheduler::max_tokens(SequenceId id) const { return sequences_.at(id)->max_tokens; }

StepPlan Scheduler::Plan() {
  CHECK(planned_.empty(), "a plan without a commit");
  StepPlan plan;
  int num_decodes = 0;
  Retire();
  for (const Sequence* sequence : running_)
    num_decodes += sequence->length() - sequence->computed == 1;
  // Decode rows share the step's tokens, but prefill always moves on.
  prefill_left_ = std::max(kPageTokens, limits_.chunk_tokens - num_decodes);
  scored_left_ = kScoredRows;
  preempted_ = false;
  Continue(plan);
  if (!preempted_) Admit(plan);
  planned_ = plan.rows;
  return plan;
}

void Scheduler::Retire() {
  for (auto it = sequences_.begin(); it != sequences_.end();) {
    Sequence& sequence = *it->second;
    if (!sequence.finished) {
      ReleaseOutOfWindow(sequence);
      ++it;
      continue;
    }
    ReleaseAll(sequence);
    (sequence.running ? running_ : waiting_).remove(&sequence);
    it = sequences_.erase(it);
  }
}

// Oldest first, so that a victim has no rows in this plan yet.
void Scheduler::Continue(StepPlan& plan) {
  for (auto it = running_.begin(); it != running_.end();) {
    Sequence& sequence = **it;
    const int num_rows = RowsFor(sequence);
    bool grown = num_rows == 0 || Grow(sequence, num_rows);
    while (!grown) {
      const bool itself = running_.back() == &sequence;
      PreemptYoungest();
      if (itself) return;
      grown = Grow(sequence, num_rows);
    }
    if (num_rows > 0) Append(sequence, num_rows, plan);
    ++it;
  }
}

void Scheduler::Admit(StepPlan& plan) {
  while (!waiting_.empty() && num_running() < limits_.max_running) {
    Sequence& sequence = *waiting_.front();
    if (formula_.Slabs(reserved_full_ + sequence.reserved_full,
                       reserved_sliding_ + sequence.reserved_sliding) > pool_.num_slabs() &&
        !running_.empty())
      return;
    const int num_rows = RowsFor(sequence);
    if (num_rows == 0) return;
    if (!Grow(sequence, num_rows)) {  // the pool is in pieces: wait, and hold nothing
      ReleaseAll(sequence);
      return;
    }
    reserved_full_ += sequence.reserved_full;
    reserved_sliding_ += sequence.reserved_sliding;
    sequence.running = true;
    waiting_.pop_front();
    running_.push_back(&sequence);
    Append(sequence, num_rows, plan);
  }
}

int Scheduler::RowsFor(const Sequence& sequence) const {
  const int left = sequence.length() - sequence.computed;
  int budget = prefill_left_;
  if (sequence.scoring()) budget = std::min(budget, scored_left_);
  // Only a running sequence's decode row was set aside.
  if (left == 1 && sequence.running && !sequence.scoring()) return 1;
  if (left <= budget) return left;
  return budget / kPageTokens * kPageTokens;
}

bool Scheduler::Grow(Sequence& sequence, int num_rows) {
  const int last = (sequence.computed + num_rows - 1) / kPageTokens;
  const int first_seen = std::max(0, sequence.computed - layout_.window + 1) / kPageTokens;
  for (int cell = 0; layout_.full_page_bytes > 0 && cell <= last; ++cell) {
    FullPage& page = sequence.full[static_cast<size_t>(cell)];
    if (page != FullPage::kNone) continue;
    const auto got = pool_.AllocateFull();
    if (!got) return false;
    page = *got;
  }
  for (int cell = first_seen; layout_.sliding_page_bytes > 0 && cell <= last; ++cell) {
    SlidingPage& page = sequence.sliding[static_cast<size_t>(cell)];
    if (page != SlidingPage::kNone) continue;
    const auto got = pool_.AllocateSliding();
    if (!got) return false;
    page = *got;
  }
  return true;
}

void Scheduler::ReleaseOutOfWindow(Sequence& sequence) {
  const int first_seen = std::max(0, sequence.computed - layout_.window + 1) / kPageTokens;
  for (int cell = first_seen - 1; cell >= 0; --cell) {
    SlidingPage& page = sequence.sliding[static_cast<size_t>(cell)];
    if (page == SlidingPage::kNone) break;
    pool_.Free(page);
    page = SlidingPage::kNone;
  }
}

void Scheduler::ReleaseAll(Sequence& sequence) {
  for (FullPage& page : sequence.full)
    if (page != FullPage::kNone) pool_.Free(std::exchange(page, FullPage::kNone));
  for (SlidingPage& page : sequence.sliding)
    if (page != SlidingPage::kNone) pool_.Free(std::exchange(page, SlidingPage::kNone));
  if (sequence.running) {
    reserved_full_ -= sequence.reserved_full;
    reserved_sliding_ -= sequence.reserved_sliding;
  }
}

void Scheduler::PreemptYoungest() {
  Sequence& victim = *running_.back();
  CHECK(running_.size() > 1, "sequence {} does not fit alone", victim.id);
  ReleaseAll(victim);
  victim.computed = 0;
  victim.running = false;
  running_.pop_back();
  waiting_.push_front(&victim);
  preempted_ = true;
  ++num_preemptions_;
}

void Scheduler::Append(Sequence& sequence, int num_rows, StepPlan& plan) {
  CheckTables(sequence, num_rows);
  Batch& batch = plan.batch;
  PlannedRows rows{sequence.id, sequence.computed, num_rows, 0, 0, false};
  const int end = sequence.computed + num_rows;
  // A prompt that is only scored ends without a draw.
  rows.samples = end == sequence.length() && sequence.length() < sequence.max_tokens;
  rows.first_output = static_cast<int>(batch.output_rows.size());
  const int first_wanted =
      sequence.scoring() ? std::max(sequence.scored, sequence.computed) : end - rows.samples;
  rows.num_outputs = std::max(0, end - first_wanted);
  const bool decode =
      num_rows == 1 && sequence.computed > 0 && !sequence.scoring() && end == sequence.length();
  if (!decode) prefill_left_ = std::max(0, prefill_left_ - num_rows);
  if (sequence.scoring()) scored_left_ = std::max(0, scored_left_ - num_rows);

  const auto first_row = static_cast<int32_t>(batch.num_rows());
  for (int position = sequence.computed; position < end; ++position) {
    if (position >= end - rows.num_outputs)
      batch.output_rows.push_back(static_cast<int32_t>(batch.num_rows()));
    batch.tokens.push_back(sequence.tokens[static_cast<size_t>(position)]);
    batch.positions.push_back(position);
  }
  batch.sequences.push_back({first_row, num_rows, sequence.computed, sequence.full.data(),
                             sequence.sliding.data(), static_cast<int32_t>(sequence.full.size())});
  plan.rows.push_back(rows);
}

// A wrong page is somebody else's text: no step runs on a table that was not looked at.
void Scheduler::CheckTables(const Sequence& sequence, int num_rows) const {
  const int last = (sequence.computed + num_rows - 1) / kPageTokens;
  const int first_seen = std::max(0, sequence.computed - layout_.window + 1) / kPageTokens;
  const int32_t slabs = pool_.num_slabs() + 1;
  for (int cell = 0; cell <= last; ++cell) {
    const auto i = static_cast<size_t>(cell);
    const auto full = static_cast<int32_t>(sequence.full[i]);
    const auto sliding = static_cast<int32_t>(sequence.sliding[i]);
    if (layout_.full_page_bytes > 0)
      CHECK(full >= layout_.full_pages_per_slab && full < slabs * layout_.full_pages_per_slab,
            "sequence {} cell {}: full page {}", sequence.id, cell, full);
    if (layout_.sliding_page_bytes > 0 && cell >= first_seen)
      CHECK(sliding >= layout_.sliding_pages_per_slab &&
                sliding < slabs * layout_.sliding_pages_per_slab,
            "sequence {} cell {}: sliding page {}", sequence.id, cell, sliding);
  }
}

void Scheduler::Commit(const StepResult& result) {
  CHECK(result.size() == planned_.size(), "{} results, {} planned", result.size(), planned_.size());
  for (size_t i = 0; i < result.size(); ++i) {
    const PlannedRows& rows = planned_[i];
    CHECK(result[i].id == rows.id, "result of {}, planned {}", result[i].id, rows.id);
    Sequence& sequence = *sequences_.at(rows.id);
    sequence.computed += rows.num_rows;
    if (sequence.scoring())
      sequence.scored = std::max(sequence.scored, std::min(sequence.computed, sequence.num_prompt));
    if (result[i].finished) sequence.finished = true;
    if (!rows.samples || sequence.finished) continue;
    sequence.tokens.push_back(result[i].token);
    CHECK(sequence.length() < sequence.max_tokens, "sequence {} goes on at its end", sequence.id);
  }
  planned_.clear();
}

void Scheduler::CheckInvariants() const {
  std::set<FullPage> full;
  std::set<SlidingPage> sliding;
  for (const auto& [id, sequence] : sequences_) {
    for (const FullPage page : sequence->full)
      if (page != FullPage::kNone)
        CHECK(sequence->running && full.insert(page).second, "full page of {}", id);
    for (const SlidingPage page : sequence->sliding)
      if (page != SlidingPage::kNone)
        CHECK(sequence->running && sliding.insert(page).second, "sliding page of {}", id);
  }
  CHECK(static_cast<int64_t>(full.size()) == pool_.num_full_pages(), "{} full", full.size());
  CHECK(static_cast<int64_t>(sliding.size()) == pool_.num_sliding_pages(), "{} sliding",
        sliding.size());
  CHECK(running_.size() + waiting_.size() == sequences_.size(), "{} live", sequences_.size());
}

}  // namespace lapidary
