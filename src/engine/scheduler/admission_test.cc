#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/scheduler/scheduler.h"

namespace lapidary {
namespace {

using testing::ElementsAre;

// One slot; each sequence ends with its first token.
class Queue {
 public:
  explicit Queue(int longest_prefix_among) : limits_(LimitsOf(longest_prefix_among)) {}

  // A prompt of `shared` tokens that all begin with and some of its own.
  SequenceId Add(int shared, int priority = 0) {
    NewSequence added;
    added.id = next_id_++;
    for (int32_t i = 0; i < shared; ++i) added.prompt.push_back(i);
    added.prompt.insert(added.prompt.end(), 10, 1000 + static_cast<int32_t>(added.id));
    added.max_tokens = static_cast<int>(added.prompt.size()) + 1;
    added.priority = priority;
    scheduler_.Add(added);
    return added.id;
  }

  // Steps until one more has started; 0 when nobody is left.
  SequenceId Next() {
    SequenceId started = 0;
    while (started == 0 && !scheduler_.idle()) {
      const StepPlan plan = scheduler_.Plan(0, 0);
      if (!plan.starts.empty()) started = plan.starts.front().id;
      StepResult result;
      for (const PlannedRows& rows : plan.rows) {
        result.push_back({rows.id, {}, rows.samples, false});
        if (rows.samples) result.back().tokens.push_back(7);
      }
      if (!plan.rows.empty()) scheduler_.Commit(result);
    }
    return started;
  }

  std::vector<SequenceId> Rest() {
    std::vector<SequenceId> order;
    while (const SequenceId id = Next()) order.push_back(id);
    return order;
  }

 private:
  static SchedulerLimits LimitsOf(int longest_prefix_among) {
    SchedulerLimits limits;
    limits.max_running = 1;
    limits.max_length = 512;
    limits.longest_prefix_among = longest_prefix_among;
    return limits;
  }

  const SchedulerLimits limits_;
  Scheduler scheduler_{
      KvLayout::Make({{false, true, 2, 32}, {true, true, 1, 32}}, 100, DType::kF32), 400, limits_};
  SequenceId next_id_ = 1;
};

TEST(Admission, ByArrivalUnlessTold) {
  Queue queue(0);
  const SequenceId known = queue.Add(128);
  EXPECT_THAT(queue.Rest(), ElementsAre(known));
  const SequenceId other = queue.Add(0), half = queue.Add(64), whole = queue.Add(128);
  EXPECT_THAT(queue.Rest(), ElementsAre(other, half, whole));
}

TEST(Admission, LongestCachedPrefixFirst) {
  Queue queue(64);
  const SequenceId known = queue.Add(128);
  EXPECT_THAT(queue.Rest(), ElementsAre(known));
  const SequenceId other = queue.Add(0), half = queue.Add(64), whole = queue.Add(128),
                   second = queue.Add(128);
  EXPECT_THAT(queue.Rest(), ElementsAre(whole, second, half, other));
}

TEST(Admission, PrioritiesComeBeforePrefixes) {
  Queue queue(64);
  queue.Add(128);
  queue.Rest();
  const SequenceId late = queue.Add(128, 1), urgent = queue.Add(0, 0);
  EXPECT_THAT(queue.Rest(), ElementsAre(urgent, late));
}

TEST(Admission, OnlyTheHeadOfTheQueueIsOrdered) {
  Queue queue(2);
  queue.Add(128);
  queue.Rest();
  const SequenceId a = queue.Add(0), b = queue.Add(64), c = queue.Add(128);
  EXPECT_THAT(queue.Rest(), ElementsAre(b, c, a));
}

// A prompt that nobody shares, and a stream of those that find everything.
TEST(Admission, NobodyIsOvertakenMoreThan64Times) {
  Queue queue(64);
  queue.Add(128);
  queue.Rest();
  const SequenceId lonely = queue.Add(0);
  for (int i = 0; i < kMaxOvertakes; ++i) {
    queue.Add(128);
    ASSERT_NE(queue.Next(), lonely) << i;
  }
  queue.Add(128);
  EXPECT_EQ(queue.Next(), lonely);
}

}  // namespace
}  // namespace lapidary
