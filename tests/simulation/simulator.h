// Simulator: the production scheduler, allocators and prefix cache against a FakeDevice, with
// random requests, cancels, deadlines and injected faults, acceptance one step late. Everything
// follows from the seed.
#ifndef LAPIDARY_TESTS_SIMULATION_SIMULATOR_H_
#define LAPIDARY_TESTS_SIMULATION_SIMULATOR_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "engine/scheduler/scheduler.h"
#include "fake_device.h"
#include "plan_checker.h"
#include "workload.h"

namespace lapidary {

struct SimulationResult {
  int64_t steps = 0, finished = 0, cancelled = 0, expired = 0, refused = 0;
  int64_t retractions = 0, faults = 0, late_results = 0, cached_tokens = 0;
  bool is_overcommit = false, has_faults = false;  // of the workload
  double largest_share = 0;                        // of its bound that a sequence took (Finish)
  PlanMeasures plans;
};

class Simulator {
 public:
  explicit Simulator(uint64_t seed);

  // This many steps with arrivals and faults; then without until all are done; then prompts that
  // the prefix cache has to know. Ends the process with a message when a promise is broken.
  SimulationResult Run(int64_t num_steps);

 private:
  struct Unread {
    StepPlan plan;
    StepNews news;
  };
  // What is left of a sequence when the faults stop.
  struct Remaining {
    int64_t steps = 0;  // that it would take alone
    bool moved = false, ended = false;
  };
  void Disturb();
  void Add(const std::vector<NewSequence>& request);
  void Step();
  void CommitOldest();
  void Fill(const PlannedRows& planned, const RowsNews& news, SequenceResult& out);
  void Finish();
  void CheckBounds(std::map<SequenceId, Remaining>& remaining, int64_t step);
  void CheckCache();
  int RunAlone(std::vector<int32_t> prompt, uint8_t salt);
  uint64_t Below(uint64_t n) { return rng_() % n; }

  const uint64_t seed_;
  std::mt19937_64 rng_;
  Workload workload_;
  Scheduler scheduler_;
  FakeDevice device_;
  PlanChecker checker_;
  std::map<SequenceId, LiveSequence>& live_;
  bool disturbed_ = true;  // arrivals, cancels and faults still happen
  std::deque<Unread> unread_;
  int64_t now_ms_ = 0;
  SimulationResult result_;
};

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_SIMULATION_SIMULATOR_H_
