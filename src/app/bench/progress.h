// ProgressLine: how far a run is, on stderr: one line that is written over on a terminal, a line
// every ten seconds elsewhere.
#ifndef LAPIDARY_APP_BENCH_PROGRESS_H_
#define LAPIDARY_APP_BENCH_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <string>

namespace lapidary {

class ProgressLine {
 public:
  // `unit`: of what comes back.
  ProgressLine(std::string label, size_t num_requests, const char* unit);
  ~ProgressLine();  // takes the line away
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // Call as often as wanted.
  void Show(size_t num_done, int64_t num_units);

 private:
  using Clock = std::chrono::steady_clock;
  const std::string label_;
  const size_t num_requests_;
  const char* const unit_;
  const bool on_terminal_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point shown_ = start_;
};

}  // namespace lapidary

#endif  // LAPIDARY_APP_BENCH_PROGRESS_H_
