// OpTimer: the time of single ops at the models' shapes beside what the same device reads and
// multiplies in the same run.
#ifndef LAPIDARY_APP_BENCH_DEVICE_OP_TIMER_H_
#define LAPIDARY_APP_BENCH_DEVICE_OP_TIMER_H_

#include <string>
#include <vector>

#include "ops/cases/op_case.h"
#include "ops/ceilings.h"

namespace lapidary {

struct OpTiming {
  std::string name;  // op/model/case
  double us = 0;
  double gb_per_s = 0, tflop_per_s = 0;  // of what a call must read and write once, and compute
  double percent = 0;                    // of the ceiling that the call is nearer to
  bool is_compute_bound = false;         // which is the one of multiplication
};

class OpTimer {
 public:
  OpTimer(Ops& ops, const Ceilings& ceilings) : ops_(ops), ceilings_(ceilings) {}

  // A graph of launches over copies of the case's tensors that exceed any cache several times.
  OpTiming Measure(OpCase& op_case) const;
  // Drawing from `rows` rows of logits of a vocabulary of 262,144 on the device, without what goes
  // in and comes out; a line for each of several filters.
  std::vector<OpTiming> MeasureDraws(int rows) const;

 private:
  OpTiming Timing(std::string name, double seconds, int64_t bytes, int64_t flops) const;

  Ops& ops_;
  const Ceilings ceilings_;
};

}  // namespace lapidary

#endif  // LAPIDARY_APP_BENCH_DEVICE_OP_TIMER_H_
