// StepLog: the lines log readers of other engines know, one per prefill step and one per interval
// of decode steps. Engine thread only.
#ifndef LAPIDARY_ENGINE_STEP_LOG_H_
#define LAPIDARY_ENGINE_STEP_LOG_H_

#include <cstdint>
#include <string>

namespace lapidary {

// What a step did and how things stand after it.
struct StepFacts {
  int num_new_sequences = 0, num_new_tokens = 0,
      num_cached_tokens = 0;  // prompt rows; 0: decode only
  int num_running = 0, num_queued = 0;
  int64_t full_tokens = 0;                   // capacity of the full pages in use
  double full_usage = 0, sliding_usage = 0;  // slabs in use by kind, of all
  // Totals since the start.
  int64_t generated_tokens = 0, retractions = 0, num_bursts = 0, drafted = 0, accepted = 0;
  int64_t now_us = 0;
};

class StepLog {
 public:
  // decode_interval: decode steps a line; 0: no lines at all.
  explicit StepLog(int decode_interval) : decode_interval_(decode_interval) {}

  // The line this step is due, or an empty string.
  std::string Line(const StepFacts& facts);

 private:
  std::string PrefillLine(const StepFacts& facts);
  std::string DecodeLine(const StepFacts& facts);

  int decode_interval_;
  int num_decode_steps_ = 0;
  int64_t prefill_time_us_ = 0;
  StepFacts at_line_;  // as of the last decode line
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_STEP_LOG_H_
