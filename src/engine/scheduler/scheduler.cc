#include "engine/scheduler/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/scheduler/sequence.h"
#include "ops/batch.h"

namespace lapidary {
namespace {

int CellsOf(int num_tokens) { return (num_tokens + kPageTokens - 1) / kPageTokens; }

// Chunks of a step that may bring a window of their own into scratch.
constexpr int kWindowedChunks = 8;

// Of what overcommit reserves, the part that each sequence's end takes back: about one retraction
// in twenty sequences, at any load.
constexpr int kReservedPart = 32;

}  // namespace

Scheduler::Scheduler(const KvLayout& layout, int32_t num_slabs, const SchedulerLimits& limits)
    : layout_(layout),
      limits_(limits),
      formula_(layout, limits.max_drafts),
      pool_(layout, num_slabs),
      cache_(layout, pool_),
      budget_(pool_, cache_),
      payers_(static_cast<size_t>(pool_.num_pages(PageKind::kSliding))),
      reserved_output_(limits.overcommit ? kPageTokens : limits.reserved_output) {
  CHECK(limits.max_running >= 1 && limits.chunk_tokens >= kPageTokens && limits.max_length >= 2,
        "{} running, chunk {}, length {}", limits.max_running, limits.chunk_tokens,
        limits.max_length);
  for (int slot = limits.max_running; slot-- > 0;) free_slots_.push_back(slot);
  by_slot_.resize(free_slots_.size());
}

Scheduler::~Scheduler() = default;

int Scheduler::MaxRows(const SchedulerLimits& limits) {
  return std::max(limits.chunk_tokens, limits.max_running + limits.max_draft_rows) + kPageTokens;
}

int Scheduler::MaxOutputRows(const SchedulerLimits& limits) {
  return kScoredRows + limits.max_running + limits.max_draft_rows;
}

int32_t Scheduler::MaxScratchPages(const KvLayout& layout, const SchedulerLimits& limits) {
  if (layout.sliding_page_bytes == 0) return 2;
  const int window_cells = (layout.window + kPageTokens - 2) / kPageTokens + 1;
  return 1 + CellsOf(limits.chunk_tokens) + 1 + kWindowedChunks * (window_cells + 1);
}

int32_t Scheduler::TableCells(const SchedulerLimits& limits) {
  return CellsOf(limits.max_length + 2 * limits.max_drafts + 1);
}

bool Scheduler::Fits(int num_tokens) const {
  return num_tokens <= limits_.max_length && formula_.SlabsFor(num_tokens) <= pool_.num_slabs();
}

void Scheduler::Add(NewSequence added) {
  CHECK(Fits(added.max_tokens) && !added.prompt.empty(), "{} tokens", added.max_tokens);
  auto sequence = std::make_unique<Sequence>();
  sequence->tokens = std::move(added.prompt);
  sequence->num_prompt = sequence->length();
  CHECK(sequence->num_prompt <= added.max_tokens, "prompt of {}", sequence->num_prompt);
  sequence->spec = std::move(added);
  const SequenceId id = sequence->id();
  const auto cells = static_cast<size_t>(CellsOf(formula_.Positions(sequence->spec.max_tokens)));
  sequence->full.assign(cells, FullPage::kNone);
  sequence->sliding.assign(cells, SlidingPage::kNone);
  sequence->order = {sequence->spec.priority, next_arrival_++};
  waiting_.emplace(sequence->order, sequence.get());
  if (sequence->spec.deadline_ms != kNoDeadline) deadlines_.emplace(sequence->spec.deadline_ms, id);
  CHECK(sequences_.emplace(id, std::move(sequence)).second, "sequence {} is live", id);
  may_admit_ = true;
}

void Scheduler::Remove(SequenceId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end() || found->second->finished) return;
  found->second->finished = true;
  ended_.push_back(id);
}

const std::vector<int32_t>& Scheduler::tokens(SequenceId id) const {
  return sequences_.at(id)->tokens;
}

SequenceId Scheduler::head_of_queue() const { return waiting_.begin()->second->id(); }

int Scheduler::cached_tokens(SequenceId id) const {
  return std::max(0, sequences_.at(id)->cached_tokens);
}

int Scheduler::cached_prefix(SequenceId id) const {
  return FindPrefix(*sequences_.at(id)).num_cells * kPageTokens;
}

StepPlan Scheduler::Plan(int64_t now_ms, int num_drafts) {
  CHECK(unread_.size() < 2, "two plans without a commit");
  num_drafts_ = std::clamp(num_drafts, 0, limits_.max_drafts);
  rows_left_ = limits_.chunk_tokens;
  draft_rows_left_ = limits_.max_draft_rows;
  scored_left_ = kScoredRows;
  scratch_left_ = MaxScratchPages(layout_, limits_) - 1;
  retracted_ = false;
  num_decoding_ = 0;

  Retire(now_ms);
  Continue();
  if (!retracted_) Admit();

  StepPlan plan = std::exchange(plan_, {});
  if (!plan.rows.empty()) {
    plan.number = next_step_++;
    UnreadStep& step = unread_.emplace_back(plan.number, std::vector<UnreadRows>());
    step.rows.reserve(plan.rows.size());
    for (const PlannedRows& rows : plan.rows)
      step.rows.push_back({rows.id, rows.slot, rows.num_rows, rows.samples});
  }
  return plan;
}

// What is over leaves; what was computed is shown to the others.
void Scheduler::Retire(int64_t now_ms) {
  expired_.clear();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now_ms) {
    const SequenceId id = deadlines_.begin()->second;
    deadlines_.erase(deadlines_.begin());
    if (sequences_.at(id)->finished) continue;
    expired_.push_back(id);
    Remove(id);
  }
  for (Sequence* sequence : running_) Settle(*sequence);
  StopEnded();
}

void Scheduler::StopEnded() {
  for (const SequenceId id : std::exchange(ended_, {})) Stop(*sequences_.at(id));
  if (limits_.sliding_share > 0) KeepSlidingShare();
}

void Scheduler::KeepSlidingShare() {
  const auto most = static_cast<int64_t>((1 - limits_.sliding_share) * pool_.num_slabs());
  while (pool_.num_slabs(PageKind::kFull) > most && pool_.num_idle_pages(PageKind::kFull) > 0 &&
         cache_.EvictOne()) {
  }
}

int64_t Scheduler::FlushCache() {
  StopEnded();
  return cache_.Flush();
}

void Scheduler::Stop(Sequence& sequence) {
  if (sequence.runs()) {
    if (limits_.overcommit)
      reserved_output_ = std::max(kPageTokens, reserved_output_ - reserved_output_ / kReservedPart);
    running_.erase(sequence.place);
    ReleaseAll(sequence);
  } else {
    waiting_.erase(sequence.order);
  }
  deadlines_.erase({sequence.spec.deadline_ms, sequence.id()});
  may_admit_ = true;
  sequences_.erase(sequence.id());
}

// Every running sequence gets its rows: those that decode first, then the chunks share what is left
// of the step.
void Scheduler::Continue() {
  lacking_.clear();
  plan_.rows.reserve(running_.size());
  for (Sequence* sequence : running_) PlanDecode(*sequence);
  if (!lacking_.empty()) Preempt();
  for (Sequence* sequence : running_) AppendDecode(*sequence);
  // Prompts always move on.
  rows_left_ = std::max(kPageTokens, rows_left_);
  for (auto it = running_.begin(); it != running_.end();) {
    Sequence& sequence = **it++;
    if (!sequence.in_prefill()) continue;
    const int num_rows = ChunkRows(sequence);
    if (num_rows > 0 && !PlanChunk(sequence, num_rows)) Retract(sequence);
  }
}

int Scheduler::NewDrafts(const Sequence& sequence) const {
  // Rows that could only pass the end draft nothing.
  const int left = sequence.spec.max_tokens - sequence.least_length() - 1;
  return std::clamp(std::min(num_drafts_, sequence.spec.max_drafts), 0, std::max(0, left));
}

void Scheduler::PlanDecode(Sequence& sequence) {
  sequence.decode_rows = 0;
  // It ends with the step that is not read yet, or was only scored.
  if (sequence.in_prefill() || sequence.least_length() >= sequence.spec.max_tokens) return;
  ++num_decoding_;
  const int left = sequence.spec.max_tokens - sequence.least_length();
  const int drafts = std::min({sequence.drafts_ready, left - 1, draft_rows_left_});
  draft_rows_left_ -= drafts;
  sequence.decode_rows = 1 + drafts;
  AdvanceWindow(sequence, sequence.least_length() - layout_.window);
  const int last_position = sequence.most_length() - 1 + drafts;
  const int end_cell = last_position / kPageTokens + 1;
  if (!TakeFull(sequence, end_cell) || !TakeSliding(sequence, sequence.window_begin, end_cell))
    lacking_.push_back(&sequence);
}

// Only what lies beyond the reservations can be lacking, and only those who are beyond theirs pay:
// the one with the least computed first.
void Scheduler::Preempt() {
  for (Sequence* sequence : lacking_) {
    while (sequence->runs()) {
      const int end_cell = (sequence->most_length() - 2 + sequence->decode_rows) / kPageTokens + 1;
      if (TakeFull(*sequence, end_cell) && TakeSliding(*sequence, sequence->window_begin, end_cell))
        break;
      Sequence* victim = sequence;
      for (Sequence* other : running_)
        if (other->overgrown() && other->length() < victim->length()) victim = other;
      Retract(*victim);
    }
  }
}

void Scheduler::Retract(Sequence& sequence) {
  const bool overgrown = sequence.promised.full == 0 && sequence.num_full >= sequence.reserved.full;
  if (sequence.decode_rows > 0) --num_decoding_;
  sequence.decode_rows = 0;
  sequence.computed_before = std::max(
      sequence.computed_before, sequence.in_prefill() ? sequence.prefilled : sequence.length());
  running_.erase(sequence.place);
  ReleaseAll(sequence);
  sequence.scored = sequence.overtaken = 0;
  ++sequence.retractions;
  waiting_.emplace(sequence.order, &sequence);
  retracted_ = true;
  if (limits_.overcommit)
    reserved_output_ =
        std::min(std::max(kPageTokens, limits_.reserved_output), 2 * reserved_output_);
  ++counters_.retractions;
  counters_.retractions_within += !overgrown;
}

void Scheduler::AppendDecode(Sequence& sequence) {
  if (sequence.decode_rows == 0) return;
  PlannedRows rows;
  rows.id = sequence.id();
  rows.slot = sequence.slot;
  rows.decode = rows.samples = true;
  rows.num_rows = rows.num_outputs = sequence.decode_rows;
  sequence.unread_step = next_step_;
  sequence.unread_max = sequence.decode_rows;
  rows.num_new_drafts = sequence.drafts_ready = NewDrafts(sequence);
  rows_left_ -= rows.num_rows;
  counters_.planned_tokens += rows.num_rows;
  plan_.rows.push_back(std::move(rows));
}

// A chunk that is not its prompt's last is a multiple of a page.
int Scheduler::ChunkRows(const Sequence& sequence) const {
  const int left = sequence.prefill_end - sequence.prefilled;
  int budget = rows_left_;
  if (sequence.scoring()) budget = std::min(budget, scored_left_);
  int rows = left <= budget ? left : budget / kPageTokens * kPageTokens;
  const auto scratch = [&](int num_rows) {
    return BatchBuilder::ScratchPages(layout_.window, sequence.prefilled, num_rows);
  };
  if (layout_.sliding_page_bytes > 0 && rows > 0 && scratch(rows) > scratch_left_) rows = 0;
  return rows;
}

bool Scheduler::PlanChunk(Sequence& sequence, int num_rows) {
  const int first = sequence.prefilled, end = first + num_rows, window = layout_.window;
  const bool is_last = end == sequence.prefill_end;
  PlannedRows rows;
  rows.id = sequence.id();
  rows.slot = sequence.slot;
  rows.first_position = first;
  rows.num_rows = num_rows;
  rows.samples = is_last && sequence.draws();
  if (layout_.sliding_page_bytes > 0)
    for (int cell = BatchBuilder::FirstCell(window, first); cell * kPageTokens < first; ++cell)
      rows.window_pages.push_back(sequence.sliding[static_cast<size_t>(cell)]);

  const int end_cell = CellsOf(end);
  AdvanceWindow(sequence, end - window);
  if (!TakeSliding(sequence, sequence.window_begin, end_cell) || !TakeFull(sequence, end_cell))
    return false;
  TakeSpareSliding(sequence, first / kPageTokens, std::min(sequence.window_begin, end_cell));

  const int first_wanted =
      sequence.scoring() ? std::max(sequence.scored, first) : end - (rows.samples ? 1 : 0);
  rows.num_outputs = std::max(0, end - first_wanted);
  if (sequence.scoring()) {
    scored_left_ -= num_rows;
    sequence.scored = std::min(end, sequence.num_prompt);
  }
  sequence.prefilled = end;
  counters_.planned_tokens += num_rows;
  counters_.recomputed_tokens += std::max(0, std::min(end, sequence.computed_before) - first);
  if (rows.samples) {
    sequence.unread_step = next_step_;
    sequence.unread_max = 1;
    rows.num_new_drafts = sequence.drafts_ready = NewDrafts(sequence);
  }
  if (!rows.samples && is_last) sequence.unread_step = next_step_;
  rows_left_ -= num_rows;
  scratch_left_ -= BatchBuilder::ScratchPages(window, first, num_rows);
  plan_.rows.push_back(std::move(rows));
  return true;
}

// Null: it is gone. Who was retracted meanwhile has no slot.
Scheduler::Sequence* Scheduler::Live(const UnreadRows& rows) {
  Sequence* const in_slot = by_slot_[static_cast<size_t>(rows.slot)];
  if (in_slot != nullptr && in_slot->id() == rows.id) return in_slot;
  const auto found = sequences_.find(rows.id);
  return found == sequences_.end() ? nullptr : found->second.get();
}

void Scheduler::Commit(const StepResult& result) {
  CHECK(!unread_.empty() && result.size() == unread_.front().rows.size(), "{} results",
        result.size());
  const UnreadStep step = std::move(unread_.front());
  unread_.pop_front();
  for (size_t i = 0; i < result.size(); ++i) {
    const UnreadRows& rows = step.rows[i];
    CHECK(result[i].id == rows.id, "result of {}, planned {}", result[i].id, rows.id);
    Sequence* const live = Live(rows);
    if (live == nullptr || live->finished) {
      ++counters_.late_results;
      continue;
    }
    Sequence& sequence = *live;
    if (sequence.unread_step == step.number) sequence.unread_step = sequence.unread_max = 0;
    const auto count = static_cast<int>(result[i].tokens.size());
    CHECK(count <= (rows.samples ? rows.num_rows : 0) &&
              sequence.length() + count <= sequence.spec.max_tokens,
          "{} tokens of {} rows, {} before", count, rows.num_rows, sequence.length());
    sequence.tokens.insert(sequence.tokens.end(), result[i].tokens.begin(), result[i].tokens.end());
    // Retracted before this was read.
    if (!sequence.runs()) sequence.computed_before = sequence.length();
    if (result[i].finished) {
      sequence.failed = result[i].failed;
      // Its pages may hold what is not finite: from here on nobody finds them.
      if (sequence.failed)
        for (PrefixNode* node : sequence.nodes) cache_.Forget(node);
      Remove(rows.id);
      continue;
    }
    CHECK(!rows.samples || (count >= 1 && sequence.length() < sequence.spec.max_tokens),
          "sequence {} goes on at its end", rows.id);
  }
}

}  // namespace lapidary
