// PlanChecker: follows every live sequence from outside, by what is added, planned and committed
// alone, and checks each plan against the promises of the scheduler. It ends the process where one
// is broken, and measures those that have a limit.
#ifndef LAPIDARY_TESTS_SIMULATION_PLAN_CHECKER_H_
#define LAPIDARY_TESTS_SIMULATION_PLAN_CHECKER_H_

#include <cstdint>
#include <map>
#include <vector>

#include "engine/scheduler/scheduler.h"

namespace lapidary {

struct LiveSequence {
  NewSequence spec;  // without its prompt
  int64_t arrival = 0;
  int num_prompt = 0;
  std::vector<int32_t> streamed;  // what its client has seen

  int32_t slot = -1;
  int prefill_end = 0, prefilled = 0;  // tokens of its prompt pass, those planned
  int settled = 0;                     // prefilled before this plan
  int scored = 0;
  int num_unread = 0;  // steps that draw for it and are not committed
  int computed = 0;    // positions ever computed
  // Numbers among all admissions, from 1; 0: none yet.
  int64_t first_admission = 0, newest_admission = 0;
  int retractions = 0, overtaken = 0;
  int cached_before = 0;  // in the prefix cache before this plan, while it waits
  int64_t rows_at = -1;   // the last step with rows of it

  int length() const { return num_prompt + static_cast<int>(streamed.size()); }
  int least_length() const { return length() + (num_unread > 0 ? 1 : 0); }
  bool runs() const { return slot >= 0; }
  bool in_prefill() const { return prefilled < prefill_end; }
  bool scores() const { return spec.score_prompt && scored < num_prompt; }
};

struct PlanMeasures {
  int most_overtakes = 0, most_retractions = 0;  // of a sequence; retractions without faults
  int64_t planned_rows = 0, recomputed_rows = 0;
  int64_t recomputed_inside = 0;  // of sequences that their reservation covers, without faults
  uint64_t trace = 0;             // hash of everything that was planned
};

class PlanChecker {
 public:
  // has_faults: promised pages may fail, now or earlier; who is retracted for that is not followed.
  PlanChecker(Scheduler& scheduler, const KvLayout& layout, const SchedulerLimits& limits,
              bool has_faults);

  void Add(const NewSequence& added);
  // Cancelled, expired or finished: no plan from here on has anything of it.
  void End(SequenceId id) { live_.erase(id); }
  // Before each plan: what the prefix cache has of those who wait.
  void LookAtQueue();
  // faulty: promised pages may have failed.
  void Check(const StepPlan& plan, bool faulty);

  std::map<SequenceId, LiveSequence>& live() { return live_; }
  const PlanMeasures& measures() const { return measures_; }
  int64_t step() const { return step_; }
  // Nothing has to wait for memory: a hit or a page to keep is always to be had.
  void SetRoomForAll() { has_room_for_all_ = true; }

 private:
  using Started = std::vector<LiveSequence*>;
  bool CheckSlots(const StepPlan& plan, bool faulty);
  Started CheckStarts(const StepPlan& plan);
  void CheckRows(const StepPlan& plan);
  void CheckDecode(const PlannedRows& rows, const LiveSequence& live) const;
  void CheckChunk(const PlannedRows& rows, LiveSequence& live);
  int ExpectedChunk(const LiveSequence& live) const;
  void CheckEverybodyMoves() const;
  void CheckOrder(const Started& started);
  void CheckPrefixOrder(const Started& started) const;
  void CheckNobodyFits(size_t num_started) const;
  static bool Precedes(const LiveSequence& a, const LiveSequence& b);
  // num_admissions: as many are over.
  bool WaitsForSibling(const LiveSequence& live, int64_t num_admissions) const;
  bool IsHeldBack(const LiveSequence& live) const;
  PageCount Reservation(const LiveSequence& live) const;
  void Note(uint64_t value) { measures_.trace = measures_.trace * 0x100000001b3u ^ value; }

  Scheduler& scheduler_;
  const KvLayout layout_;
  const SchedulerLimits limits_;
  const bool has_faults_;
  bool has_room_for_all_ = false;
  std::map<SequenceId, LiveSequence> live_;
  std::vector<SequenceId> slots_;  // 0: free
  int64_t next_arrival_ = 0, step_ = 0, num_admissions_ = 0;
  PlanMeasures measures_;
  // What is left of the step while its rows are gone through.
  int rows_left_ = 0, scored_left_ = 0;
  int32_t scratch_left_ = 0;
};

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_SIMULATION_PLAN_CHECKER_H_
