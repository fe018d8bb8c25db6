#include "engine/device_thread.h"

#include <utility>

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
    launched_.push_back(std::move(plan));
  }
  changed_.notify_all();
}

StepNews DeviceThread::Read() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !done_.empty(); });
  StepNews news = std::move(done_.front());
  done_.pop_front();
  return news;
}

void DeviceThread::Run() {
  while (true) {
    StepPlan plan;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stop_ || !launched_.empty(); });
      if (launched_.empty()) return;
      plan = std::move(launched_.front());
      launched_.pop_front();
    }
    StepNews news = runner_->Run(plan);
    {
      const std::lock_guard lock(mutex_);
      done_.push_back(std::move(news));
    }
    changed_.notify_all();
  }
}

}  // namespace lapidary
