// DeviceThread: runs step plans in the order they were launched, beside the engine's thread. What a
// stream is to a GPU: launch returns at once, results are read later.
#ifndef LAPIDARY_ENGINE_DEVICE_THREAD_H_
#define LAPIDARY_ENGINE_DEVICE_THREAD_H_

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "engine/rank.h"

namespace lapidary {

class DeviceThread {
 public:
  explicit DeviceThread(std::unique_ptr<StepRunner> runner);
  ~DeviceThread();  // finishes what was launched

  void Launch(StepPlan plan);
  // The news of the oldest launched plan that was not read yet.
  StepNews Read();
  // Steady clock; thread-safe.
  int64_t last_beat_ms() const { return runner_->last_beat_ms(); }

 private:
  void Run();

  std::unique_ptr<StepRunner> runner_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<StepPlan> plans_;  // guarded by mutex_, as all below
  std::deque<StepNews> done_;
  bool reading_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_DEVICE_THREAD_H_
