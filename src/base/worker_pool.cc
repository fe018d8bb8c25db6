#include "base/worker_pool.h"

#include <algorithm>

#include "base/check.h"

namespace lapidary {

WorkerPool::WorkerPool(int num_threads) {
  CHECK(num_threads >= 1 && num_threads <= 1024, "{} threads", num_threads);
  for (int i = 1; i < num_threads; ++i) threads_.emplace_back([this] { ThreadMain(); });
}

WorkerPool::~WorkerPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::Run(int64_t count, int64_t grain, RangeFunction function, const void* context) {
  if (count <= 0) return;
  CHECK(grain > 0, "grain {}", grain);
  if (threads_.empty() || count <= grain) {
    for (int64_t begin = 0; begin < count; begin += grain)
      function(context, begin, std::min(count, begin + grain));
    return;
  }
  {
    std::lock_guard lock(mutex_);
    function_ = function;
    context_ = context;
    count_ = count;
    grain_ = grain;
    next_.store(0, std::memory_order_relaxed);
    num_active_ = static_cast<int>(threads_.size());
    ++generation_;
  }
  start_.notify_all();
  TakeRanges();
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return num_active_ == 0; });
}

void WorkerPool::ThreadMain() {
  uint64_t seen = 0;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return stopping_ || generation_ != seen; });
      if (stopping_) return;
      seen = generation_;
    }
    TakeRanges();
    std::lock_guard lock(mutex_);
    if (--num_active_ == 0) done_.notify_one();
  }
}

void WorkerPool::TakeRanges() {
  for (;;) {
    const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
    if (begin >= count_) return;
    function_(context_, begin, std::min(count_, begin + grain_));
  }
}

}  // namespace lapidary
