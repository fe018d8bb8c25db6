#include "simulator.h"

#include <algorithm>
#include <utility>

namespace lapidary {
namespace {

// The steps that a sequence takes alone: pages of its prompt, a step a token, and the reading of
// the last ones.
int64_t StepsAlone(const LiveSequence& live) {
  return (live.length() + kPageTokens - 1) / kPageTokens + live.spec.max_tokens - live.length() + 4;
}

}  // namespace

Simulator::Simulator(uint64_t seed)
    : seed_(seed),
      rng_(seed),
      workload_(seed, rng_),
      scheduler_(workload_.layout(), workload_.num_slabs(), workload_.limits()),
      device_(workload_.layout(), scheduler_.pool(), workload_.limits(), workload_.is_greedy()),
      checker_(scheduler_, workload_.layout(), workload_.limits(), workload_.has_faults()),
      live_(checker_.live()) {
  if (workload_.has_room_for_all() && !workload_.has_faults()) checker_.SetRoomForAll();
  if (workload_.has_faults())
    scheduler_.budget().SetFault([this] {
      const bool fails = disturbed_ && Below(400) == 0;
      result_.faults += fails;
      return fails;
    });
}

void Simulator::Add(const std::vector<NewSequence>& request) {
  if (!scheduler_.Fits(request.front().max_tokens)) {
    ++result_.refused;
    return;
  }
  for (const NewSequence& added : request) {
    checker_.Add(added);
    scheduler_.Add(added);
  }
}

void Simulator::Disturb() {
  now_ms_ += static_cast<int64_t>(Below(3));
  if (Below(500) == 0) now_ms_ += 1000;  // the clock jumps
  if (live_.size() < workload_.max_live() && workload_.ArrivesNow())
    Add(workload_.MakeRequest(now_ms_));
  if (!workload_.disturbs()) return;
  if (!live_.empty() && Below(40) == 0) {
    auto victim = live_.begin();
    std::advance(victim, static_cast<std::ptrdiff_t>(Below(live_.size())));
    ++result_.cancelled;
    const SequenceId id = victim->first;
    scheduler_.Remove(id);
    if (Below(2) == 0) scheduler_.Remove(id);  // a client may say it twice
    checker_.End(id);
  }
  if (!workload_.has_room_for_all() && Below(300) == 0) scheduler_.FlushCache();
}

SimulationResult Simulator::Run(int64_t num_steps) {
  while (result_.steps < num_steps) {
    Disturb();
    Step();
  }
  disturbed_ = false;
  Finish();
  CheckCache();
  scheduler_.FlushCache();
  CHECK(scheduler_.pool().num_free_slabs() == scheduler_.pool().num_slabs(),
        "{} of {} slabs are free at the end", scheduler_.pool().num_free_slabs(),
        scheduler_.pool().num_slabs());
  const SchedulerCounters& counters = scheduler_.counters();
  result_.is_overcommit = workload_.scenario() == Scenario::kOvercommit;
  result_.has_faults = workload_.has_faults();
  result_.retractions = counters.retractions;
  result_.cached_tokens = counters.cache_hits;
  result_.late_results = counters.late_results;
  result_.plans = checker_.measures();
  CHECK(workload_.has_faults() || (counters.recomputed_tokens == result_.plans.recomputed_rows &&
                                   counters.planned_tokens == result_.plans.planned_rows),
        "counters say {} of {} rows are computed again, {} of {} are", counters.recomputed_tokens,
        counters.planned_tokens, result_.plans.recomputed_rows, result_.plans.planned_rows);
  return result_;
}

void Simulator::Step() {
  checker_.LookAtQueue();
  StepPlan plan = scheduler_.Plan(now_ms_, static_cast<int>(Below(9)));
  ++result_.steps;
  for (const SequenceId id : scheduler_.expired()) {
    CHECK(live_.contains(id) && live_.at(id).spec.deadline_ms <= now_ms_, "sequence {} expires",
          id);
    ++result_.expired;
    checker_.End(id);
  }
  for (const auto& [id, live] : live_)
    CHECK(live.spec.deadline_ms > now_ms_, "the deadline of sequence {} passed", id);
  scheduler_.CheckInvariants();
  const int64_t retractions = scheduler_.counters().retractions;
  checker_.Check(plan, workload_.has_faults() && disturbed_);
  // With nothing running and nothing unread the head of the queue starts.
  const bool retracted = retractions > result_.retractions;
  result_.retractions = retractions;
  const bool has_rows = !plan.rows.empty();
  if (!has_rows && unread_.empty() && !retracted && !(workload_.has_faults() && disturbed_))
    CHECK(live_.empty(), "a stall with {} running, {} waiting", scheduler_.num_running(),
          scheduler_.num_waiting());
  StepNews news = device_.Run(plan, rng_);
  if (has_rows) unread_.push_back({std::move(plan), std::move(news)});
  // The step before is read while this one runs; sometimes all are.
  const bool one_may_wait = workload_.overlaps() && has_rows && (!disturbed_ || Below(20) != 0);
  while (unread_.size() > (one_may_wait ? 1u : 0u)) CommitOldest();
  CHECK(scheduler_.counters().retractions_within == 0 || result_.faults > 0,
        "a sequence inside its reservation was retracted");
}

// What counts of a step for one sequence.
void Simulator::Fill(const PlannedRows& planned, const RowsNews& news, SequenceResult& out) {
  const auto found = live_.find(planned.id);
  if (found == live_.end()) return;
  LiveSequence& live = found->second;
  live.num_unread -= planned.samples;
  const int end = planned.first_position + planned.num_rows;
  if (!planned.samples && !planned.decode)
    out.finished = end >= live.num_prompt && live.spec.max_tokens == live.num_prompt;
  for (const int32_t token : news.tokens) {
    if (out.finished) break;
    out.tokens.push_back(token);
    live.streamed.push_back(token);
    const bool ends_early = workload_.disturbs() && Below(60) == 0;
    out.finished = ends_early || live.length() == live.spec.max_tokens;
  }
  if (planned.samples) live.computed = std::max(live.computed, live.length());
  // What a failed sequence shared is not found again either: not where hits are counted on.
  const bool may_fail = disturbed_ && workload_.disturbs() && !workload_.has_room_for_all();
  // More often with the first token: what it leaves is what others begin with.
  const uint64_t odds = planned.decode ? 1000 : 50;
  if (may_fail && planned.samples && !out.finished && Below(odds) == 0) {
    out.finished = out.failed = true;
    if (live.runs()) device_.Spoil(live.slot);
  }
}

void Simulator::CommitOldest() {
  const Unread step = std::move(unread_.front());
  unread_.pop_front();
  StepResult results;
  for (size_t i = 0; i < step.plan.rows.size(); ++i) {
    SequenceResult& out = results.emplace_back();
    out.id = step.plan.rows[i].id;
    Fill(step.plan.rows[i], step.news.rows[i], out);
  }
  scheduler_.Commit(results);
  for (const SequenceResult& out : results) {
    const auto found = live_.find(out.id);
    if (found == live_.end()) continue;
    const LiveSequence& live = found->second;
    const std::vector<int32_t>& tokens = scheduler_.tokens(out.id);
    CHECK(static_cast<int>(tokens.size()) == live.length() &&
              std::equal(live.streamed.begin(), live.streamed.end(),
                         tokens.begin() + live.num_prompt),
          "streamed tokens of {} differ", out.id);
    if (!out.finished) continue;
    ++result_.finished;
    checker_.End(out.id);
  }
}

// Liveness: a sequence ends within the steps that it would take alone and twice those of the others
// that had rows meanwhile.
void Simulator::Finish() {
  std::map<SequenceId, Remaining> remaining;
  int64_t all = 0;
  for (const auto& [id, live] : live_) {
    remaining[id].steps = StepsAlone(live);
    all += StepsAlone(live);
  }
  for (int64_t step = 1; !live_.empty() || scheduler_.has_unread(); ++step) {
    CHECK(step <= 2 * all + 20, "{} sequences do not end", live_.size());
    Step();
    CheckBounds(remaining, step);
  }
  Step();
  CHECK(scheduler_.idle(), "something is left");
}

void Simulator::CheckBounds(std::map<SequenceId, Remaining>& remaining, int64_t step) {
  int64_t others = 0;
  for (auto& [id, left] : remaining) {
    const auto found = live_.find(id);
    left.moved |= found == live_.end() || found->second.rows_at >= checker_.step() - step + 1;
    if (left.moved) others += left.steps;
  }
  for (auto& [id, left] : remaining) {
    if (left.ended || live_.contains(id)) continue;
    left.ended = true;
    const int64_t bound = left.steps + 2 * (others - left.steps);
    result_.largest_share =
        std::max(result_.largest_share, static_cast<double>(step) / static_cast<double>(bound));
    CHECK(step <= bound, "sequence {} took {} steps of {}", id, step, bound);
  }
}

// Runs one sequence and returns how many tokens of its prompt were cached.
int Simulator::RunAlone(std::vector<int32_t> prompt, uint8_t salt) {
  NewSequence added;
  added.id = (uint64_t{1} << 40) + static_cast<uint64_t>(result_.steps);
  added.max_tokens = static_cast<int>(prompt.size()) + 1;
  added.salt[0] = salt;
  auto params = std::make_shared<SequenceParams>();
  params->choice = salt;
  params->num_prompt = static_cast<int>(prompt.size());
  params->max_length = added.max_tokens;
  added.params = params;
  added.prompt = std::move(prompt);
  Add({added});
  Step();
  const int cached = scheduler_.cached_tokens(added.id);
  while (!live_.empty() || scheduler_.has_unread()) Step();
  Step();
  return cached;
}

// A prompt that was computed before is found whole but for its last token's page; under another
// salt it is not; and where two prompts part, a third one goes on.
void Simulator::CheckCache() {
  scheduler_.FlushCache();
  auto length = static_cast<int>(1 + Below(static_cast<uint64_t>(workload_.limits().max_length)));
  length = std::min(length, workload_.limits().max_length - 1);
  while (length > 1 && !scheduler_.Fits(length + 1)) length /= 2;
  if (!scheduler_.Fits(length + 1)) return;
  std::vector<int32_t> prompt;
  prompt.reserve(static_cast<size_t>(length));
  for (int i = 0; i < length; ++i) prompt.push_back(static_cast<int32_t>(Below(3)));
  const int pages = (length - 1) / kPageTokens;
  CHECK(RunAlone(prompt, 1) == 0, "an empty cache has something");
  const int again = RunAlone(prompt, 1);
  const bool has_room =
      scheduler_.pool().num_slabs() >= 2 * scheduler_.formula().SlabsFor(length + 1);
  CHECK(!has_room || again == pages * kPageTokens, "{} of {} tokens are cached", again, length);
  if (pages == 0) return;
  CHECK(RunAlone(prompt, 3) == 0, "a prompt is found under another salt");
  if (!workload_.has_room_for_all()) return;
  const auto known = static_cast<int>(1 + Below(static_cast<uint64_t>(pages))) * kPageTokens;
  for (const int32_t other : {7, 8}) {
    std::fill(prompt.begin() + known, prompt.end(), other);
    const int cached = RunAlone(prompt, 1);
    CHECK(other == 7 ? cached <= known : cached == known, "{} of {} known tokens are cached",
          cached, known);
  }
}

}  // namespace lapidary
