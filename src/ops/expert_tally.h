// ExpertTally: how many experts the rows of a call chose together: what a layer with experts reads.
// Every backend counts as it goes, so that a run can say what it read.
#ifndef LAPIDARY_OPS_EXPERT_TALLY_H_
#define LAPIDARY_OPS_EXPERT_TALLY_H_

#include <array>
#include <cstdint>

#include "ops/ops.h"

namespace lapidary {

struct ExpertTally {
  struct Calls {
    uint64_t num_calls = 0;
    uint64_t num_experts = 0;  // distinct ones of each call, of all calls together
  };
  static constexpr int kMaxRows = 1024;       // calls of more are not counted
  std::array<Calls, kMaxRows + 1> of_rows{};  // by the rows that chose experts

  // The calls since `before`, an earlier tally of the same ops.
  ExpertTally operator-(const ExpertTally& before) const;
};

// Of all calls since the ops were made; waits for those that are queued.
ExpertTally ReadExpertTally(Ops& ops);

}  // namespace lapidary

#endif  // LAPIDARY_OPS_EXPERT_TALLY_H_
