// Workload: what one seed runs. The shape of the model, of the arena and of the limits, and the
// sequences that arrive.
#ifndef LAPIDARY_TESTS_SIMULATION_WORKLOAD_H_
#define LAPIDARY_TESTS_SIMULATION_WORKLOAD_H_

#include <cstdint>
#include <random>
#include <vector>

#include "engine/scheduler/scheduler.h"

namespace lapidary {

enum class Scenario : uint8_t {
  kMixed,       // everything at random, arenas at the edges
  kCrowd,       // a stream of short requests past long ones that need the whole arena
  kOvergrown,   // short reservations of sequences that share their windows; no faults
  kOvercommit,  // 1.5 x load: at their ends all running ones would need 1.5 arenas; no faults
};

class Workload {
 public:
  // The scenario follows from the seed.
  Workload(uint64_t seed, std::mt19937_64& rng);

  Scenario scenario() const { return scenario_; }
  const KvLayout& layout() const { return layout_; }
  const SchedulerLimits& limits() const { return limits_; }
  int32_t num_slabs() const { return num_slabs_; }             // slab 0 included
  bool has_room_for_all() const { return has_room_for_all_; }  // no cached page needs to go soon
  bool overlaps() const { return overlaps_; }      // a step is planned before the last is read
  bool has_faults() const { return has_faults_; }  // pages that were promised fail
  bool disturbs() const { return scenario_ != Scenario::kOvercommit; }  // cancels, early ends
  // Tokens follow from what was before: equal prompts go on alike, as greedy requests do.
  bool is_greedy() const { return is_greedy_; }
  size_t max_live() const { return max_live_; }
  bool ArrivesNow() { return Below(arrival_odds_) == 0; }

  // The choices of one request, in the order they are to be added.
  std::vector<NewSequence> MakeRequest(int64_t now_ms);

 private:
  uint64_t Below(uint64_t n) { return rng_() % n; }
  void ChooseArena();
  std::vector<int32_t> MakePrompt();
  int ChooseOutput();

  std::mt19937_64& rng_;
  Scenario scenario_ = Scenario::kMixed;
  KvLayout layout_;
  SchedulerLimits limits_;
  int32_t num_slabs_ = 0;
  bool has_room_for_all_ = false, overlaps_ = true, has_faults_ = false, is_greedy_ = false;
  bool caches_ = true;
  size_t max_live_ = 14;
  uint64_t arrival_odds_ = 3;
  int num_priorities_ = 1;
  std::vector<std::vector<int32_t>> segments_;  // prompts are made of these
  SequenceId next_id_ = 1;
};

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_SIMULATION_WORKLOAD_H_
