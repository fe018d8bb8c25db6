#include <gtest/gtest.h>

#include "engine/scheduler/scheduler.h"

namespace lapidary {
namespace {

// A slab holds one sliding page or ten full ones; the window is two pages.
KvLayout Layout() {
  return KvLayout::Make({{false, true, 10, 32}, {true, true, 1, 32}}, 2 * kPageTokens, DType::kF32);
}

// The first 64 tokens are everybody's.
NewSequence Sequence(SequenceId id, int num_prompt, int max_tokens) {
  NewSequence added;
  added.id = id;
  for (int32_t i = 0; i < num_prompt; ++i)
    added.prompt.push_back(i < kPageTokens ? i : 1000 * static_cast<int32_t>(id) + i);
  added.max_tokens = max_tokens;
  return added;
}

// A step in which each sequence that draws gets one token; returns who has rows.
std::vector<SequenceId> Step(Scheduler& scheduler) {
  const StepPlan plan = scheduler.Plan(0, 0);
  scheduler.CheckInvariants();
  StepResult result;
  std::vector<SequenceId> ids;
  for (const PlannedRows& rows : plan.rows) {
    ids.push_back(rows.id);
    result.push_back({rows.id, {}, false, false});
    if (!rows.samples) continue;
    result.back().tokens.push_back(7);
    const auto length = static_cast<int>(scheduler.tokens(rows.id).size());
    result.back().finished = length + 1 == 230;
  }
  if (!plan.rows.empty()) scheduler.Commit(result);
  return ids;
}

// One sequence pays for a page that another reads too. The other outgrows its reservation before
// the first one's window leaves the page: what the first one then needs is still there.
TEST(SequencePages, WhoOutgrowsItsReservationKeepsAPromiseForSharedPages) {
  SchedulerLimits limits;
  limits.max_running = 2;
  limits.max_length = 230;
  limits.reserved_output = 13;
  // A slab of full pages, three sliding pages of the first, one of the second and one that is
  // promised to it.
  Scheduler scheduler(Layout(), 1 + 6, limits);
  scheduler.Add(Sequence(1, 169, 230));
  EXPECT_EQ(Step(scheduler), std::vector<SequenceId>{1});
  scheduler.Add(Sequence(2, 114, 230));
  EXPECT_EQ(Step(scheduler), (std::vector<SequenceId>{1, 2}));
  EXPECT_EQ(scheduler.cached_tokens(2), kPageTokens);
  while (!scheduler.idle()) Step(scheduler);
  // There is no third page for the second while the first runs.
  EXPECT_EQ(scheduler.counters().retractions, 1);
  EXPECT_EQ(scheduler.counters().retractions_within, 0);
}

}  // namespace
}  // namespace lapidary
