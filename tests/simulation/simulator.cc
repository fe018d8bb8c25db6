#include "simulator.h"

#include <algorithm>
#include <utility>

namespace lapidary {
namespace {

constexpr int kMaxLive = 14;

}  // namespace

Simulator::Simulator(uint64_t seed) : seed_(seed), rng_(seed) {
  ChooseShape();
  scheduler_ = std::make_unique<Scheduler>(layout_, num_slabs_, limits_);
  device_ = std::make_unique<FakeDevice>(layout_, num_slabs_, limits_);
  if (faults_)
    scheduler_->budget().SetFault([this] {
      const bool fails = Below(400) == 0 && faults_;
      result_.faults += fails;
      return fails;
    });
  for (int i = 0; i < 6; ++i) {
    std::vector<int32_t>& segment = segments_.emplace_back();
    segment.resize(1 + Below(i < 3 ? 64 : 200));
    for (int32_t& token : segment) token = static_cast<int32_t>(Below(3));
  }
}

// Layouts of the models in small, and degenerate ones; arenas at the edges.
void Simulator::ChooseShape() {
  static const std::vector<std::vector<KvLayerShape>> kLayers = {
      {{false, true, 2, 32}, {true, true, 1, 32}},                        // 1 sliding = 2 full
      {{false, true, 2, 32}, {false, true, 3, 32}, {true, true, 2, 32}},  // 2 sliding = 5 full
      {{false, true, 10, 32}, {true, true, 1, 32}},                       // 1 sliding = 10 full
      {{false, true, 1, 32}},
      {{true, true, 1, 32}},
      {{false, true, 1, 32}, {true, true, 3, 32}},  // a full page is three sliding ones
  };
  const int windows[] = {64, 65, 100, 128, 63, 200, 2};
  layout_ = KvLayout::Make(kLayers[Below(kLayers.size())], windows[Below(7)], DType::kF32);
  limits_.max_running = static_cast<int>(1 + Below(6));
  limits_.chunk_tokens = static_cast<int>(64 + Below(3) * 64 + Below(2) * 17);
  limits_.max_drafts = static_cast<int>(Below(3) == 0 ? 0 : 1 + Below(8));
  limits_.max_draft_rows = static_cast<int>(Below(20));
  limits_.max_length = static_cast<int>(150 + Below(500));
  limits_.reserved_output = static_cast<int>(1 + Below(120));
  limits_.overcommit = Below(3) == 0;
  limits_.sliding_share = Below(4) == 0 ? 0.5 : 0;
  overlap_ = Below(4) != 0;
  faults_ = Below(3) == 0;
  caches_ = Below(5) != 0;
  num_priorities_ = Below(3) == 0 ? 3 : 1;
  // One longest sequence exactly, one slab more, two, or plenty; slab 0 is not given out.
  const auto one =
      static_cast<int32_t>(KvFormula(layout_, limits_.max_drafts).SlabsFor(limits_.max_length));
  const int32_t sizes[] = {one, one + 1, 2 * one - 1, 2 * one, 3 * one, 8 * one};
  num_slabs_ = sizes[Below(6)] + 1;
}

std::vector<int32_t> Simulator::MakePrompt() {
  std::vector<int32_t> prompt;
  const uint64_t parts = 1 + Below(4);
  for (uint64_t i = 0; i < parts; ++i) {
    const auto& segment = segments_[Below(segments_.size())];
    prompt.insert(prompt.end(), segment.begin(), segment.end());
  }
  if (Below(2) == 0) prompt.push_back(static_cast<int32_t>(Below(3)));
  prompt.resize(std::min<size_t>(prompt.size(), static_cast<size_t>(limits_.max_length) - 1));
  return prompt;
}

void Simulator::Arrive() {
  const std::vector<int32_t> prompt = MakePrompt();
  const auto num_prompt = static_cast<int>(prompt.size());
  const int room = limits_.max_length - num_prompt;
  const auto output = static_cast<int>(Below(10) == 0 ? 0 : 1 + Below(Below(3) == 0 ? 300 : 40));
  const auto salt = static_cast<uint32_t>(1 + Below(2));
  const uint64_t choices = Below(6) == 0 ? 1 + Below(3) : 1;
  SequenceId first = 0;
  for (uint64_t choice = 0; choice < choices; ++choice) {
    NewSequence added;
    added.id = next_id_++;
    added.prompt = prompt;
    added.max_tokens = num_prompt + std::min(output, room);
    added.priority = static_cast<int>(Below(static_cast<uint64_t>(num_priorities_)));
    if (Below(8) == 0) added.deadline_ms = now_ms_ + static_cast<int64_t>(Below(200));
    added.salt[0] = static_cast<uint8_t>(salt);
    for (int border = 0; border < num_prompt; border += static_cast<int>(1 + Below(150)))
      added.turn_borders.push_back(border);
    added.waits_for_prompt_of = first;
    added.score_prompt = choice == 0 && Below(8) == 0;
    added.caches = caches_ || choices > 1;
    if (Below(4) == 0) added.max_drafts = static_cast<int>(Below(9));
    auto params = std::make_shared<SequenceParams>();
    params->choice = salt;
    params->num_prompt = num_prompt;
    params->max_length = added.max_tokens;
    added.params = params;
    if (first == 0) first = added.id;
    live_[added.id] = {num_prompt, added.max_tokens, 0, {}};
    scheduler_->Add(std::move(added));
  }
}

void Simulator::Disturb() {
  now_ms_ += static_cast<int64_t>(Below(3));
  if (Below(500) == 0) now_ms_ += 1000;  // the clock jumps
  if (live_.size() < kMaxLive && Below(3) == 0) Arrive();
  if (!live_.empty() && Below(40) == 0) {
    auto victim = live_.begin();
    std::advance(victim, static_cast<std::ptrdiff_t>(Below(live_.size())));
    ++result_.cancelled;
    const SequenceId id = victim->first;
    scheduler_->Remove(id);
    live_.erase(id);
  }
  if (Below(300) == 0) scheduler_->FlushCache();
}

SimulationResult Simulator::Run(int64_t num_steps) {
  while (result_.steps < num_steps) {
    Disturb();
    Step(true);
  }
  // Liveness: no more arrivals, cancels or faults.
  faults_ = false;
  int64_t left = 20;
  for (const auto& [id, live] : live_)
    left += 2 * (live.max_tokens / kPageTokens + live.max_tokens + 4);
  for (; !live_.empty() || scheduler_->has_unread(); --left) {
    CHECK(left > 0, "seed {}: {} sequences do not end", seed_, live_.size());
    Step(false);
  }
  Step(false);
  CHECK(scheduler_->idle(), "seed {}: something is left", seed_);
  scheduler_->FlushCache();
  CHECK(scheduler_->pool().num_free_slabs() == scheduler_->pool().num_slabs(),
        "seed {}: {} of {} slabs are free at the end", seed_, scheduler_->pool().num_free_slabs(),
        scheduler_->pool().num_slabs());
  const SchedulerCounters& counters = scheduler_->counters();
  result_.retractions = counters.retractions;
  result_.recomputed_tokens = counters.recomputed_tokens;
  result_.planned_tokens = counters.planned_tokens;
  result_.cache_hits = counters.cache_hits;
  result_.late_results = counters.late_results;
  return result_;
}

void Simulator::Step(bool faults) {
  const auto drafts = static_cast<int>(Below(9));
  const int num_waiting = scheduler_->num_waiting();
  StepPlan plan = scheduler_->Plan(now_ms_, drafts);
  ++result_.steps;
  for (const SequenceId id : scheduler_->expired()) {
    ++result_.expired;
    live_.erase(id);
  }
  scheduler_->CheckInvariants();
  CheckPlan(plan, num_waiting);
  const bool has_rows = !plan.rows.empty();
  StepNews news = device_->Run(plan, rng_);
  if (has_rows) unread_.push_back({std::move(plan), std::move(news)});
  // The step before is read while this one runs; sometimes all are.
  while (unread_.size() > (overlap_ && has_rows && (!faults || Below(20) != 0) ? 1u : 0u))
    CommitOldest();
  CHECK(scheduler_->counters().retractions_within == 0 || result_.faults > 0,
        "seed {}: a sequence inside its reservation was retracted", seed_);
}

void Simulator::CheckPlan(const StepPlan& plan, int num_waiting) {
  int rows = 0, outputs = 0, decode_rows = 0, chunk_rows = 0;
  bool chunks = false;
  for (const PlannedRows& planned : plan.rows) {
    CHECK(planned.num_rows > 0 && !(planned.decode && chunks), "decode rows come first");
    chunks |= !planned.decode;
    rows += planned.num_rows;
    outputs += planned.num_outputs;
    (planned.decode ? decode_rows : chunk_rows) += planned.num_rows;
    if (const auto live = live_.find(planned.id); live != live_.end()) live->second.idle_steps = 0;
    result_.trace = result_.trace * 0x100000001b3u ^ (planned.id << 20) ^
                    static_cast<uint64_t>(planned.first_position * 64 + planned.num_rows);
  }
  for (const PlannedRows& planned : plan.rows) {
    if (planned.decode || planned.samples) continue;
    const auto live = live_.find(planned.id);
    const int end = planned.first_position + planned.num_rows;
    CHECK(planned.num_rows % kPageTokens == 0 || live == live_.end() ||
              end >= live->second.num_prompt,
          "a chunk of {} rows inside a prompt", planned.num_rows);
  }
  CHECK(rows <= Scheduler::MaxRows(limits_) && outputs <= Scheduler::MaxOutputRows(limits_),
        "{} rows, {} outputs", rows, outputs);
  CHECK(chunk_rows <= std::max(kPageTokens, limits_.chunk_tokens - decode_rows),
        "{} chunk rows beside {} decode rows", chunk_rows, decode_rows);
  for (const TableChange& change : plan.table_changes)
    result_.trace = result_.trace * 0x100000001b3u ^ static_cast<uint64_t>(change.page + 2);
  // Somebody moves while anybody can: with nothing running and nothing unread, the head is
  // admitted.
  const bool retracted = scheduler_->num_waiting() > num_waiting;
  if (plan.rows.empty() && unread_.empty() && !faults_ && !retracted)
    CHECK(scheduler_->num_running() == 0 && scheduler_->num_waiting() == 0,
          "seed {}: stalled with {} running, {} waiting", seed_, scheduler_->num_running(),
          scheduler_->num_waiting());
}

void Simulator::CommitOldest() {
  Unread step = std::move(unread_.front());
  unread_.pop_front();
  StepResult results;
  for (size_t i = 0; i < step.plan.rows.size(); ++i) {
    const PlannedRows& planned = step.plan.rows[i];
    RowsNews& news = step.news.rows[i];
    SequenceResult& out = results.emplace_back();
    out.id = planned.id;
    const auto found = live_.find(planned.id);
    if (found == live_.end()) continue;
    Live& live = found->second;
    const int end = planned.first_position + planned.num_rows;
    if (!planned.samples && !planned.decode) {
      out.finished = end >= live.num_prompt && live.max_tokens == live.num_prompt;
    }
    for (const int32_t token : news.tokens) {
      if (out.finished) break;
      out.tokens.push_back(token);
      live.streamed.push_back(token);
      out.finished = Below(60) == 0 ||
                     live.num_prompt + static_cast<int>(live.streamed.size()) == live.max_tokens;
    }
    if (!out.finished && planned.samples && Below(3000) == 0) out.finished = out.failed = true;
  }
  scheduler_->Commit(results);
  for (const SequenceResult& out : results) {
    const auto found = live_.find(out.id);
    if (found == live_.end()) continue;
    const Live& live = found->second;
    const std::vector<int32_t>& tokens = scheduler_->tokens(out.id);
    CHECK(tokens.size() == static_cast<size_t>(live.num_prompt) + live.streamed.size() &&
              std::equal(live.streamed.begin(), live.streamed.end(),
                         tokens.begin() + live.num_prompt),
          "seed {}: streamed tokens of {} differ", seed_, out.id);
    if (!out.finished) continue;
    ++result_.finished;
    live_.erase(found);
  }
}

}  // namespace lapidary
