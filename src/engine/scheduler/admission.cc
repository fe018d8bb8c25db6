// The scheduler's last phase: who of those who wait starts.
#include <algorithm>
#include <span>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "engine/scheduler/sequence.h"
#include "ops/batch.h"

namespace lapidary {

bool Scheduler::WaitsForItsPrompt(const Sequence& sequence) const {
  const auto found = sequences_.find(sequence.spec.waits_for_prompt_of);
  if (found == sequences_.end() || found->second->finished) return false;
  const Sequence& first = *found->second;
  // Pages planned in this very plan cannot be read by its own rows.
  const int wanted = (first.num_prompt - 1) / kPageTokens;
  return first.cached_tokens < 0 || (first.runs() && static_cast<int>(first.nodes.size()) < wanted);
}

// In order of priority and arrival, the head of the queue by cached prefix if the limits say so.
// One that does not fit or has less in the cache may be overtaken, a bounded number of times.
void Scheduler::Admit() {
  // Reservations grow with their tokens: while the least does not fit, nobody does.
  if (!may_admit_ && !budget_.Fits(formula_.Pages(least_wanted_))) return;
  may_admit_ = false;
  least_wanted_ = limits_.max_length;
  closed_.clear();
  auto rest = waiting_.begin();
  if (limits_.longest_prefix_among > 1) {
    const std::vector<Sequence*> head = HeadByPrefix();
    if (!head.empty()) {
      const auto last = std::max_element(head.begin(), head.end(),
                                         [](auto* a, auto* b) { return a->order < b->order; });
      const Waiting::key_type end = (*last)->order;
      for (Sequence* sequence : head)
        if (!Consider(*sequence)) return;
      rest = waiting_.upper_bound(end);
    }
  }
  while (rest != waiting_.end())
    if (!Consider(*(rest++)->second)) return;
}

// Of each priority those first that nobody may overtake any more, then those who find most of their
// tokens in the prefix cache.
std::vector<Scheduler::Sequence*> Scheduler::HeadByPrefix() const {
  if (free_slots_.empty() || rows_left_ <= 0) return {};
  using Rank = std::tuple<int, bool, int>;
  std::vector<std::pair<Rank, Sequence*>> ranked;
  for (const auto& [order, sequence] : waiting_) {
    if (static_cast<int>(ranked.size()) == limits_.longest_prefix_among) break;
    const bool may_be_overtaken = sequence->overtaken < kMaxOvertakes;
    const int cells = may_be_overtaken ? FindPrefix(*sequence).num_cells : 0;
    ranked.emplace_back(Rank{order.first, may_be_overtaken, -cells}, sequence);
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Sequence*> head;
  head.reserve(ranked.size());
  for (const auto& [rank, sequence] : ranked) head.push_back(sequence);
  return head;
}

// Starts it, if it can; false when the step or the slots are full.
bool Scheduler::Consider(Sequence& sequence) {
  if (free_slots_.empty() || rows_left_ <= 0) {
    may_admit_ = true;  // the rest was not looked at
    return false;
  }
  const auto closed = closed_.find(sequence.order.first);
  if (sequence.finished || (closed != closed_.end() && closed->second < sequence.order.second))
    return true;
  if (WaitsForItsPrompt(sequence)) {
    may_admit_ = true;
    return true;
  }
  switch (TryAdmit(sequence)) {
    case Admission::kNoRows:
      may_admit_ = true;
      // Else it lacks rows with logits, or scratch: others need neither.
      if (retracted_ || rows_left_ < kPageTokens) return false;
      CloseBehind(sequence);
      break;
    case Admission::kNoPages:
      least_wanted_ = std::min(least_wanted_, ReservedTokens(sequence));
      CloseBehind(sequence);
      break;
    case Admission::kAdmitted:
      NoteOvertaken(sequence);
      break;
  }
  return true;
}

// Nobody who came after it starts before it, if it was overtaken often enough.
void Scheduler::CloseBehind(const Sequence& sequence) {
  if (sequence.overtaken < kMaxOvertakes) return;
  const auto [priority, arrival] = sequence.order;
  int64_t& closed = closed_.emplace(priority, arrival).first->second;
  closed = std::min(closed, arrival);
}

void Scheduler::NoteOvertaken(const Sequence& started) {
  for (auto it = waiting_.lower_bound({started.order.first, 0});
       it != waiting_.end() && it->first < started.order; ++it) {
    Sequence& earlier = *it->second;
    if (earlier.finished || WaitsForItsPrompt(earlier)) continue;
    ++earlier.overtaken;
    CloseBehind(earlier);
  }
}

// What the prefix cache has of it now. The last token is computed in any case: its row is drawn
// from.
PrefixCache::Match Scheduler::FindPrefix(const Sequence& sequence) const {
  if (!sequence.spec.caches || sequence.spec.score_prompt) return {};
  const int end = (sequence.length() - 1) / kPageTokens * kPageTokens;
  return cache_.Find(sequence.spec.salt,
                     std::span(sequence.tokens).first(static_cast<size_t>(end)));
}

// Takes the first cells of a match into use if what the sequence then lacks can be promised.
bool Scheduler::EnterIfItFits(const Sequence& sequence, const PrefixCache::Match& match,
                              int cells) {
  const int first_sliding = BatchBuilder::FirstCell(layout_.window, cells * kPageTokens);
  cache_.Enter(match, cells, first_sliding);
  const PageCount reserved = formula_.Pages(ReservedTokens(sequence));
  int64_t to_pay = 0;
  for (int cell = first_sliding; layout_.sliding_page_bytes > 0 && cell < cells; ++cell)
    to_pay += pool_.num_users(match.nodes[static_cast<size_t>(cell)]->sliding) == 1;
  if (budget_.Fits({std::max<int64_t>(0, reserved.full - cells),
                    std::max<int64_t>(0, reserved.sliding - to_pay)}))
    return true;
  LeaveMatch(match, cells);
  return false;
}

void Scheduler::LeaveMatch(const PrefixCache::Match& match, int cells) {
  const int first_sliding = BatchBuilder::FirstCell(layout_.window, cells * kPageTokens);
  for (int cell = cells; cell-- > 0;) {
    PrefixNode* node = match.nodes[static_cast<size_t>(cell)];
    if (layout_.sliding_page_bytes > 0 && cell >= first_sliding) cache_.LeaveSliding(node);
    cache_.Leave(node);
  }
}

Scheduler::Admission Scheduler::TryAdmit(Sequence& sequence) {
  const PrefixCache::Match match = FindPrefix(sequence);
  const int length = sequence.length(), window = layout_.window;
  // Cached pages keep the slabs they lie in: scattered ones can cost more than new ones would.
  int cells = match.num_cells;
  if (!EnterIfItFits(sequence, match, cells)) {
    if (cells == 0 || !EnterIfItFits(sequence, match, 0)) return Admission::kNoPages;
    cells = 0;
  }
  sequence.prefilled = cells * kPageTokens;
  sequence.prefill_end = length;
  const int num_rows = ChunkRows(sequence);
  if (num_rows == 0) {
    LeaveMatch(match, cells);
    return Admission::kNoRows;
  }
  const int first_sliding = BatchBuilder::FirstCell(window, cells * kPageTokens);
  const bool has_sliding = layout_.sliding_page_bytes > 0;

  waiting_.erase(sequence.order);
  running_.push_back(&sequence);
  sequence.place = std::prev(running_.end());
  sequence.slot = free_slots_.back();
  free_slots_.pop_back();
  by_slot_[static_cast<size_t>(sequence.slot)] = &sequence;
  plan_.starts.push_back({sequence.slot, sequence.id(), sequence.tokens, sequence.spec.params});
  sequence.reserved = formula_.Pages(ReservedTokens(sequence));
  sequence.nodes.assign(match.nodes.begin(), match.nodes.begin() + cells);
  for (int cell = 0; cell < cells; ++cell) {
    const PrefixNode* node = sequence.nodes[static_cast<size_t>(cell)];
    if (layout_.full_page_bytes > 0) SetPage(sequence, cell, node->full);
    if (!has_sliding || cell < first_sliding) continue;
    SetPage(sequence, cell, node->sliding);
    Pay(sequence, node->sliding);
  }
  sequence.num_full = layout_.full_page_bytes > 0 ? cells : 0;
  sequence.sliding_begin = sequence.window_begin = first_sliding;
  sequence.sliding_end = cells;
  Rebudget(sequence);
  // Windows that a later prompt may go on from: at turn borders, where this prompt leaves one that
  // is known, and at its end.
  const auto keep = [&](int cell) {
    if (cell > 0)
      sequence.kept_windows.emplace_back(BatchBuilder::FirstCell(window, cell * kPageTokens), cell);
  };
  for (const int32_t border : sequence.spec.turn_borders) keep(border / kPageTokens);
  if (match.num_known_cells > cells) keep(match.num_known_cells);
  keep((length - 1) / kPageTokens);

  if (sequence.cached_tokens < 0) {
    sequence.cached_tokens = cells * kPageTokens;
    counters_.cache_queries += sequence.num_prompt;
    counters_.cache_hits += sequence.cached_tokens;
  }
  if (PlanChunk(sequence, num_rows)) return Admission::kAdmitted;
  Retract(sequence);
  return Admission::kNoRows;
}

}  // namespace lapidary
