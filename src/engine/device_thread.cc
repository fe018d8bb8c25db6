#include "engine/device_thread.h"

#include <optional>
#include <utility>

#include "base/trace.h"

namespace lapidary {

DeviceThread::DeviceThread(std::unique_ptr<StepRunner> runner)
    : runner_(std::move(runner)), thread_([this] { Run(); }) {}

DeviceThread::~DeviceThread() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void DeviceThread::Launch(StepPlan plan) {
  {
    const std::lock_guard lock(mutex_);
    plans_.push_back(std::move(plan));
  }
  changed_.notify_all();
}

StepNews DeviceThread::Read() {
  std::unique_lock lock(mutex_);
  reading_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return !done_.empty(); });
  reading_ = false;
  StepNews news = std::move(done_.front());
  done_.pop_front();
  return news;
}

// A plan that the runner may take is launched at once. Waiting for the device comes last: a plan
// that arrives meanwhile would lie.
void DeviceThread::Run() {
  Trace::NameThread("steps");
  int num_running = 0;
  while (true) {
    std::optional<StepPlan> plan;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] {
        return stop_ || !plans_.empty() || (num_running > 0 && reading_ && done_.empty());
      });
      if (!plans_.empty() && num_running < runner_->depth()) {
        plan = std::move(plans_.front());
        plans_.pop_front();
      } else if (num_running == 0) {
        return;
      }
    }
    if (plan) {
      runner_->Launch(*plan);
      ++num_running;
      continue;
    }
    StepNews news = runner_->Read();
    --num_running;
    {
      const std::lock_guard lock(mutex_);
      done_.push_back(std::move(news));
    }
    changed_.notify_all();
  }
}

}  // namespace lapidary
