#include "plan_checker.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "ops/batch.h"

namespace lapidary {

PlanChecker::PlanChecker(Scheduler& scheduler, const KvLayout& layout,
                         const SchedulerLimits& limits, bool has_faults)
    : scheduler_(scheduler),
      layout_(layout),
      limits_(limits),
      has_faults_(has_faults),
      slots_(static_cast<size_t>(limits.max_running)) {
  // The formula against counting: pages that a span touches, at every alignment.
  const int span = layout.window + 2 * limits.max_drafts + 1;
  for (const int tokens : {1, 64, 65, limits.max_length}) {
    const int positions = tokens + 2 * limits.max_drafts + 1;
    int most = 0;
    for (int begin = 0; begin < kPageTokens; ++begin)
      most = std::max(most, (begin + span - 1) / kPageTokens + 1);
    const int cells = (positions + kPageTokens - 1) / kPageTokens;
    const PageCount pages = scheduler.formula().Pages(tokens);
    CHECK(pages.full == (layout.full_page_bytes > 0 ? cells : 0) &&
              pages.sliding == (layout.sliding_page_bytes > 0 ? std::min(cells, most) : 0),
          "{} tokens: {} full and {} sliding pages", tokens, pages.full, pages.sliding);
  }
}

void PlanChecker::Add(const NewSequence& added) {
  LiveSequence& live = live_[added.id];
  live.spec = added;
  live.spec.prompt.clear();
  live.arrival = next_arrival_++;
  live.num_prompt = static_cast<int>(added.prompt.size());
}

void PlanChecker::LookAtQueue() {
  if (limits_.longest_prefix_among <= 1 || !has_room_for_all_) return;
  for (auto& [id, live] : live_)
    if (!live.runs()) live.cached_before = scheduler_.cached_prefix(id);
}

void PlanChecker::Check(const StepPlan& plan, bool faulty) {
  ++step_;
  for (auto& [id, live] : live_) live.settled = live.prefilled;
  const bool retracted = CheckSlots(plan, faulty);
  const Started started = CheckStarts(plan);
  CHECK(!retracted || faulty || started.empty(), "a plan that retracts also admits");
  CheckRows(plan);
  if (!faulty) CheckEverybodyMoves();
  if (!retracted && !has_faults_) CheckOrder(started);
  for (const TableChange& change : plan.table_changes) Note(static_cast<uint64_t>(change.page + 2));
}

// Who is retracted, and whether who has ended is gone.
bool PlanChecker::CheckSlots(const StepPlan& plan, bool faulty) {
  bool retracted = false;
  for (const int32_t slot : plan.freed_slots) {
    SequenceId& id = slots_.at(static_cast<size_t>(slot));
    CHECK(id != 0, "slot {} is freed twice", slot);
    if (const auto found = live_.find(std::exchange(id, 0)); found != live_.end()) {
      LiveSequence& live = found->second;
      live.slot = -1;
      live.prefill_end = live.prefilled = live.scored = live.overtaken = 0;
      ++live.retractions;
      retracted = true;
      if (!faulty)
        measures_.most_retractions = std::max(measures_.most_retractions, live.retractions);
      CHECK(faulty || live.retractions <= kMaxRetractions, "sequence {} is retracted {} times",
            live.spec.id, live.retractions);
    }
  }
  for (const SequenceId id : slots_)
    CHECK(id == 0 || live_.contains(id), "sequence {} has ended and keeps its slot", id);
  return retracted;
}

PlanChecker::Started PlanChecker::CheckStarts(const StepPlan& plan) {
  Started started;
  for (const SlotStart& start : plan.starts) {
    const auto rows =
        std::find_if(plan.rows.begin(), plan.rows.end(), [&start](const PlannedRows& r) {
          return r.slot == start.slot && r.id == start.id && !r.decode;
        });
    CHECK(rows != plan.rows.end(), "sequence {} starts without rows", start.id);
    const auto found = live_.find(rows->id);
    CHECK(found != live_.end(), "sequence {} starts after its end", rows->id);
    LiveSequence& live = found->second;
    CHECK(!live.runs() && std::exchange(slots_.at(static_cast<size_t>(start.slot)), rows->id) == 0,
          "sequence {} starts in slot {}, in use", rows->id, start.slot);
    CHECK(static_cast<int>(start.tokens.size()) == live.length() &&
              std::equal(live.streamed.begin(), live.streamed.end(),
                         start.tokens.begin() + live.num_prompt),
          "sequence {} starts with {} tokens of {}", rows->id, start.tokens.size(), live.length());
    const int hit = rows->first_position;
    CHECK(hit % kPageTokens == 0 && hit < live.length() &&
              (hit == 0 || (live.spec.caches && !live.spec.score_prompt)),
          "sequence {} starts at {} of {}", rows->id, hit, live.length());
    CHECK(has_faults_ || live.first_admission > 0 || scheduler_.cached_tokens(rows->id) == hit,
          "{} cached tokens, {}", scheduler_.cached_tokens(rows->id), hit);
    CHECK(has_faults_ || !WaitsForSibling(live, num_admissions_),
          "sequence {} does not wait for its sibling", rows->id);
    // A choice whose prompt is computed by its sibling takes all of it, if it starts soon: two
    // contexts' slabs are spare, so that what the sibling left behind its window outlives the next
    // start, not all later ones.
    const auto sibling = live_.find(live.spec.waits_for_prompt_of);
    if (has_room_for_all_ && sibling != live_.end() && sibling->second.runs() &&
        num_admissions_ - sibling->second.newest_admission <= 1 && live.streamed.empty())
      CHECK(hit == (live.num_prompt - 1) / kPageTokens * kPageTokens,
            "sequence {} takes {} of {} prompt tokens from its sibling", rows->id, hit,
            live.num_prompt);
    live.newest_admission = ++num_admissions_;
    if (live.first_admission == 0) live.first_admission = num_admissions_;
    live.slot = start.slot;
    live.prefill_end = live.length();
    live.prefilled = live.settled = hit;
    started.push_back(&live);
  }
  return started;
}

void PlanChecker::CheckRows(const StepPlan& plan) {
  rows_left_ = limits_.chunk_tokens;
  scored_left_ = kScoredRows;
  scratch_left_ = Scheduler::MaxScratchPages(layout_, limits_) - 1;
  int draft_rows = 0, outputs = 0, num_rows = 0;
  bool chunks = false;
  for (const PlannedRows& rows : plan.rows) {
    const auto found = live_.find(rows.id);
    CHECK(found != live_.end(), "rows of sequence {} after its end", rows.id);
    LiveSequence& live = found->second;
    CHECK(rows.num_rows > 0 && live.slot == rows.slot && std::exchange(live.rows_at, step_) < step_,
          "{} rows of sequence {} in slot {} of {}", rows.num_rows, rows.id, rows.slot, live.slot);
    CHECK(!(rows.decode && chunks), "decode rows come first");
    if (!rows.decode && !std::exchange(chunks, true))
      rows_left_ = std::max(kPageTokens, rows_left_);
    if (rows.decode) {
      CheckDecode(rows, live);
      draft_rows += rows.num_rows - 1;
    } else {
      CheckChunk(rows, live);
    }
    live.num_unread += rows.samples;
    rows_left_ -= rows.num_rows;
    outputs += rows.num_outputs;
    num_rows += rows.num_rows;
    Note(rows.id << 20 ^ static_cast<uint64_t>(rows.first_position * 64 + rows.num_rows));
  }
  if (!chunks) rows_left_ = std::max(kPageTokens, rows_left_);
  measures_.planned_rows += num_rows;
  CHECK(draft_rows <= limits_.max_draft_rows, "{} draft rows", draft_rows);
  CHECK(num_rows <= Scheduler::MaxRows(limits_) && outputs <= Scheduler::MaxOutputRows(limits_),
        "{} rows, {} outputs", num_rows, outputs);
}

void PlanChecker::CheckDecode(const PlannedRows& rows, const LiveSequence& live) const {
  CHECK(rows.samples && !live.in_prefill() && rows.num_rows == rows.num_outputs,
        "decode rows of sequence {}", rows.id);
  CHECK(live.least_length() + rows.num_rows <= live.spec.max_tokens,
        "sequence {} of {} tokens verifies {} rows at {}", rows.id, live.spec.max_tokens,
        rows.num_rows, live.least_length());
  CHECK(rows.num_rows - 1 <= std::min(limits_.max_drafts, live.spec.max_drafts) &&
            rows.num_new_drafts <= std::min(limits_.max_drafts, live.spec.max_drafts),
        "sequence {}: {} rows, {} drafts", rows.id, rows.num_rows, rows.num_new_drafts);
}

// The rows that a chunk has to have now: all that are left of its prompt, or whole pages.
int PlanChecker::ExpectedChunk(const LiveSequence& live) const {
  const int left = live.prefill_end - live.prefilled;
  const int budget = live.scores() ? std::min(rows_left_, scored_left_) : rows_left_;
  const int rows = left <= budget ? left : budget / kPageTokens * kPageTokens;
  if (layout_.sliding_page_bytes > 0 && rows > 0 &&
      BatchBuilder::ScratchPages(layout_.window, live.prefilled, rows) > scratch_left_)
    return 0;
  return rows;
}

void PlanChecker::CheckChunk(const PlannedRows& rows, LiveSequence& live) {
  const int first = rows.first_position, end = first + rows.num_rows;
  CHECK(live.in_prefill() && first == live.prefilled && rows.num_rows == ExpectedChunk(live),
        "sequence {}: a chunk of {} rows at {}, expected {} at {}", rows.id, rows.num_rows, first,
        ExpectedChunk(live), live.prefilled);
  CHECK(rows.samples == (end == live.prefill_end && live.length() < live.spec.max_tokens),
        "sequence {}: a chunk to {} of {}", rows.id, end, live.prefill_end);
  const int scored = live.scores() ? end - std::max(live.scored, first) : 0;
  CHECK(rows.num_outputs == (live.scores() ? scored : int{rows.samples}), "{} output rows of {}",
        rows.num_outputs, rows.id);
  if (live.scores()) {
    scored_left_ -= rows.num_rows;
    live.scored = std::min(end, live.num_prompt);
  }
  scratch_left_ -= BatchBuilder::ScratchPages(layout_.window, first, rows.num_rows);
  const int again = std::max(0, std::min(end, live.computed) - first);
  measures_.recomputed_rows += again;
  const bool inside =
      !limits_.overcommit && live.spec.max_tokens <= live.num_prompt + limits_.reserved_output;
  if (inside) measures_.recomputed_inside += again;
  live.computed = std::max(live.computed, end);
  live.prefilled = end;
}

// Who runs has rows, unless its end is certain or its turn in the step did not come.
void PlanChecker::CheckEverybodyMoves() const {
  for (const auto& [id, live] : live_) {
    if (!live.runs() || live.rows_at == step_) continue;
    if (live.in_prefill())
      CHECK(ExpectedChunk(live) == 0, "sequence {} could have had {} rows", id,
            ExpectedChunk(live));
    else
      CHECK(live.least_length() >= live.spec.max_tokens, "sequence {} does not decode", id);
  }
}

bool PlanChecker::Precedes(const LiveSequence& a, const LiveSequence& b) {
  return std::pair(a.spec.priority, a.arrival) < std::pair(b.spec.priority, b.arrival);
}

bool PlanChecker::WaitsForSibling(const LiveSequence& live, int64_t num_admissions) const {
  const auto found = live_.find(live.spec.waits_for_prompt_of);
  if (found == live_.end()) return false;
  const LiveSequence& first = found->second;
  return first.first_admission == 0 || first.first_admission > num_admissions ||
         (first.runs() && first.settled / kPageTokens < (first.num_prompt - 1) / kPageTokens);
}

// Somebody in front of it in its priority may not be overtaken any more.
bool PlanChecker::IsHeldBack(const LiveSequence& live) const {
  return std::any_of(live_.begin(), live_.end(), [&](const auto& entry) {
    const LiveSequence& other = entry.second;
    return !other.runs() && other.spec.priority == live.spec.priority &&
           other.arrival < live.arrival && other.overtaken >= kMaxOvertakes;
  });
}

// Prompt and reserved output, twice as much after each retraction, in the end all. What overcommit
// reserves is the scheduler's guess.
PageCount PlanChecker::Reservation(const LiveSequence& live) const {
  int64_t tokens = live.spec.max_tokens;
  if (live.retractions < kMaxRetractions) {
    const bool first = live.retractions == 0;
    const int64_t output =
        first ? scheduler_.reserved_output() : int64_t{limits_.reserved_output} << live.retractions;
    tokens = std::min(tokens, (first ? live.num_prompt : live.length()) + output);
  }
  return scheduler_.formula().Pages(static_cast<int>(tokens));
}

// A request that fits starts at once, in order of priority and arrival or cached prefix, unless it
// would overtake an earlier one of its priority for the 65th time.
void PlanChecker::CheckOrder(const Started& started) {
  const bool by_prefix = limits_.longest_prefix_among > 1;
  if (by_prefix && has_room_for_all_) CheckPrefixOrder(started);
  for (const LiveSequence* starts : started) {
    for (auto& [id, waits] : live_) {
      if (waits.runs() || !Precedes(waits, *starts) ||
          WaitsForSibling(waits, starts->newest_admission))
        continue;
      if (waits.spec.priority == starts->spec.priority) ++waits.overtaken;
      measures_.most_overtakes = std::max(measures_.most_overtakes, waits.overtaken);
      CHECK(waits.overtaken <= kMaxOvertakes, "sequence {} is overtaken {} times", id,
            waits.overtaken);
      // Scored prompts also wait for rows with logits.
      if (by_prefix || starts->settled > 0 || waits.spec.score_prompt || IsHeldBack(waits))
        continue;
      const PageCount wanted = Reservation(waits), given = Reservation(*starts);
      CHECK(wanted.full > given.full || wanted.sliding > given.sliding,
            "sequence {} starts, {} before it would have fit", starts->spec.id, id);
    }
  }
  if (scheduler_.num_running() < limits_.max_running && rows_left_ >= kPageTokens)
    CheckNobodyFits(started.size());
}

void PlanChecker::CheckNobodyFits(size_t num_started) const {
  for (const auto& [id, waits] : live_) {
    if (waits.runs() || WaitsForSibling(waits, num_admissions_) || waits.spec.score_prompt ||
        IsHeldBack(waits))
      continue;
    const int rows = std::min(rows_left_, waits.length());
    if (layout_.sliding_page_bytes > 0 &&
        BatchBuilder::ScratchPages(layout_.window, 0, rows) > scratch_left_)
      continue;
    CHECK(!scheduler_.budget().Fits(Reservation(waits)),
          "sequence {} of {} tokens fits and waits beside {} running, {} started", id,
          waits.length(), scheduler_.num_running(), num_started);
  }
}

// Where memory holds up nobody: whoever starts stood, by prefix, before all who go on waiting. The
// plan may have evicted what it looked at: who starts had at most, who waits has at least.
void PlanChecker::CheckPrefixOrder(const Started& started) const {
  std::vector<const LiveSequence*> queue(started.begin(), started.end());
  for (const auto& [id, live] : live_)
    if (!live.runs()) queue.push_back(&live);
  std::sort(queue.begin(), queue.end(), [](auto* a, auto* b) { return Precedes(*a, *b); });
  using Rank = std::tuple<bool, int, bool, int, size_t>;
  const auto rank_of = [&](size_t i) -> Rank {
    const LiveSequence& live = *queue[i];
    if (i >= static_cast<size_t>(limits_.longest_prefix_among)) return {true, 0, false, 0, i};
    const bool is_old = live.overtaken >= kMaxOvertakes;
    const int cached = live.runs() ? std::max(live.settled, live.cached_before)
                                   : scheduler_.cached_prefix(live.spec.id);
    return {false, live.spec.priority, !is_old, is_old ? 0 : -cached, i};
  };
  for (size_t s = 0; s < queue.size(); ++s)
    for (size_t w = 0; w < queue.size() && queue[s]->runs(); ++w) {
      const LiveSequence& waits = *queue[w];
      if (waits.runs() || waits.spec.score_prompt || IsHeldBack(waits) ||
          WaitsForSibling(waits, queue[s]->newest_admission))
        continue;
      CHECK(rank_of(s) < rank_of(w), "sequence {} starts, {} has more in the cache",
            queue[s]->spec.id, waits.spec.id);
    }
}

}  // namespace lapidary
