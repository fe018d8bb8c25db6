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

#include "engine/scheduler.h"
#include "fake_device.h"

namespace lapidary {

struct SimulationResult {
  int64_t steps = 0, finished = 0, cancelled = 0, expired = 0;
  int64_t retractions = 0, faults = 0, recomputed_tokens = 0, planned_tokens = 0, cache_hits = 0;
  int64_t late_results = 0;
  int max_overtaken_steps = 0;
  uint64_t trace = 0;  // hash of everything that was planned
};

class Simulator {
 public:
  explicit Simulator(uint64_t seed);

  // This many steps with arrivals and faults, then without until all are done. Ends the process
  // with a message when a promise is broken.
  SimulationResult Run(int64_t num_steps);

 private:
  struct Live {
    int num_prompt = 0, max_tokens = 0;
    int64_t idle_steps = 0;  // since it last moved, while nothing was wrong
    std::vector<int32_t> streamed;
  };
  struct Unread {
    StepPlan plan;
    StepNews news;
  };
  void ChooseShape();
  void Arrive();
  std::vector<int32_t> MakePrompt();
  void Disturb();
  void Step(bool faults);
  void CheckPlan(const StepPlan& plan, int num_waiting_before);
  void CommitOldest();
  void Finish(SequenceId id);
  uint64_t Below(uint64_t n) { return rng_() % n; }

  const uint64_t seed_;
  std::mt19937_64 rng_;
  KvLayout layout_;
  int32_t num_slabs_ = 0;
  SchedulerLimits limits_;
  bool overlap_ = true, faults_ = false, caches_ = true;
  int num_priorities_ = 1;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<FakeDevice> device_;
  std::map<SequenceId, Live> live_;
  std::deque<Unread> unread_;
  std::vector<std::vector<int32_t>> segments_;  // prompts are made of these
  SequenceId next_id_ = 1;
  int64_t now_ms_ = 0;
  SimulationResult result_;
};

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_SIMULATION_SIMULATOR_H_
