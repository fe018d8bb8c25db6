#include "server/admin.h"

#include <utility>

namespace lapidary {
namespace {

constexpr size_t kMaxTasks = 64;
constexpr std::chrono::milliseconds kLook{10};

}  // namespace

Admin::Admin() : thread_([this] { Run(); }) {}

Admin::~Admin() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool Admin::Post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (stop_ || tasks_.size() >= kMaxTasks) return false;
    tasks_.push_back(std::move(task));
  }
  changed_.notify_all();
  return true;
}

bool Admin::WaitUntil(const std::function<bool()>& is_true, std::chrono::milliseconds at_most) {
  const auto end = std::chrono::steady_clock::now() + at_most;
  while (!is_true()) {
    std::unique_lock lock(mutex_);
    if (stop_ || std::chrono::steady_clock::now() >= end) return false;
    changed_.wait_for(lock, kLook);
  }
  return true;
}

void Admin::Run() {
  while (true) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stop_ || !tasks_.empty(); });
      if (stop_) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace lapidary
