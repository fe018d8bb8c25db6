#include "base/worker_pool.h"

#include <algorithm>

#include "base/check.h"

namespace lapidary {
namespace {

// Looks for `done` about as long as a sleep and a wake-up would take; whether it came.
template <typename Done>
bool Spin(const Done& done) {
  constexpr int kLooks = 1000;
  for (int i = 0; i < kLooks; ++i) {
    if (done()) return true;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  return done();
}

}  // namespace

WorkerPool::WorkerPool(int num_threads) {
  CHECK(num_threads >= 1 && num_threads <= 1024, "{} threads", num_threads);
  for (int i = 1; i < num_threads; ++i) threads_.emplace_back([this] { ThreadMain(); });
}

WorkerPool::~WorkerPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    ++generation_;
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
  function_ = function;
  context_ = context;
  count_ = count;
  grain_ = grain;
  num_ranges_ = (count + grain - 1) / grain;
  num_open_.store(num_ranges_, std::memory_order_relaxed);
  num_untaken_.store(num_ranges_, std::memory_order_release);
  {
    std::lock_guard lock(mutex_);
    ++generation_;
  }
  start_.notify_all();
  TakeRanges();
  const auto done = [this] { return num_open_ == 0; };
  if (Spin(done)) return;
  std::unique_lock lock(mutex_);
  done_.wait(lock, done);
}

void WorkerPool::ThreadMain() {
  uint64_t seen = 0;
  const auto started = [&] { return generation_ != seen; };
  for (;;) {
    if (!Spin(started)) {
      std::unique_lock lock(mutex_);
      start_.wait(lock, started);
    }
    if (stopping_) return;
    seen = generation_;
    TakeRanges();
  }
}

// A worker that comes late finds nothing left, or ranges of a later loop, and then takes part in
// that one: it looks at a loop only once it holds a range of it, which keeps the loop from ending.
void WorkerPool::TakeRanges() {
  for (;;) {
    const int64_t untaken = num_untaken_.fetch_sub(1, std::memory_order_acq_rel);
    if (untaken <= 0) return;
    const int64_t begin = (num_ranges_ - untaken) * grain_;
    function_(context_, begin, std::min(count_, begin + grain_));
    if (--num_open_ != 0) continue;
    std::lock_guard lock(mutex_);
    done_.notify_one();
  }
}

}  // namespace lapidary
