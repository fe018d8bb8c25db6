#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/support/rounds.h"

namespace lapidary {
namespace {

// Random arrivals, ends and cancels in a pool that is too small, every invariant at every step.
TEST(Scheduler, RandomLife) {
  const KvLayout layout =
      KvLayout::Make({{false, true, 2, 32}, {true, true, 1, 32}}, 100, DType::kF32);
  const SchedulerLimits limits{6, 128, 8};
  Scheduler scheduler(layout, 24, limits);
  std::mt19937 rng(1);
  SequenceId next = 1;
  int64_t finished = 0;
  const int num_steps = Rounds(200000);
  for (int step = 0; step < num_steps; ++step) {
    if (scheduler.num_waiting() < 4 && rng() % 4 == 0) {
      NewSequence added{next++, {}, 0, rng() % 5 == 0};
      added.prompt.assign(1 + rng() % 250, 7);
      added.max_tokens = static_cast<int>(added.prompt.size() + 1 + rng() % 1000);
      if (scheduler.Fits(added.max_tokens)) scheduler.Add(std::move(added));
    }
    if (rng() % 50 == 0) scheduler.Remove(next - 1 - rng() % 8 % next);
    const StepPlan plan = scheduler.Plan();
    scheduler.CheckInvariants();
    ASSERT_LE(plan.batch.num_rows(), Scheduler::MaxRows(limits));
    ASSERT_LE(static_cast<int>(plan.batch.output_rows.size()), Scheduler::MaxOutputRows(limits));
    ASSERT_TRUE(scheduler.num_running() == 0 || !plan.rows.empty()) << "stalled at " << step;
    StepResult result;
    for (const PlannedRows& rows : plan.rows) {
      const bool last = rng() % 400 == 0;
      const auto length = static_cast<int>(scheduler.tokens(rows.id).size());
      ASSERT_TRUE(rows.samples == (rows.first_position + rows.num_rows == length));
      ASSERT_TRUE(rows.samples || rows.num_rows % kPageTokens == 0);
      const bool full = rows.samples && length + 1 == scheduler.max_tokens(rows.id);
      result.push_back({rows.id, 7, rows.samples && (last || full)});
      finished += result.back().finished;
    }
    scheduler.Commit(result);
  }
  EXPECT_GT(finished, Rounds(500));
  EXPECT_GT(next, static_cast<SequenceId>(Rounds(1000)));
  EXPECT_GT(scheduler.num_preemptions(), Rounds(10));
  for (SequenceId id = 0; id < next; ++id) scheduler.Remove(id);
  (void)scheduler.Plan();
  EXPECT_TRUE(scheduler.idle());
  EXPECT_EQ(scheduler.pool().num_free_slabs(), scheduler.pool().num_slabs());
}

}  // namespace
}  // namespace lapidary
