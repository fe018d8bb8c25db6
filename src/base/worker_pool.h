// WorkerPool: a fixed set of threads for data-parallel loops on the CPU backend. Started once,
// never grows. One loop runs at a time; the calling thread takes part, and waits for ranges that
// others have begun, not for threads that the system has not let run. Results must not depend on
// the number of threads: a body writes only what its own index owns. Whoever waits looks for some
// microseconds before it sleeps, because the next loop of a forward pass follows at once.
#ifndef LAPIDARY_BASE_WORKER_POOL_H_
#define LAPIDARY_BASE_WORKER_POOL_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace lapidary {

class WorkerPool {
 public:
  // num_threads counts the calling thread; 1 runs everything inline.
  explicit WorkerPool(int num_threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int num_threads() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls body(begin, end) over disjoint ranges of at most `grain` indices that cover [0, count);
  // returns when all are done. Not reentrant: body must not call ParallelFor on the same pool.
  template <typename Body>
  void ParallelFor(int64_t count, int64_t grain, const Body& body) {
    Run(
        count, grain,
        [](const void* context, int64_t begin, int64_t end) {
          (*static_cast<const Body*>(context))(begin, end);
        },
        &body);
  }

 private:
  using RangeFunction = void (*)(const void* context, int64_t begin, int64_t end);

  void Run(int64_t count, int64_t grain, RangeFunction function, const void* context);
  void ThreadMain();
  void TakeRanges();

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  // Changed under mutex_ where a sleeper may wait for it, so that no wake-up is lost.
  std::atomic<uint64_t> generation_{0};  // a new value starts a loop, or tells workers to stop
  std::atomic<int64_t> num_open_{0};     // ranges that are not finished
  std::atomic<bool> stopping_{false};

  // The current loop: written before num_untaken_, read by who holds a range.
  RangeFunction function_ = nullptr;
  const void* context_ = nullptr;
  int64_t count_ = 0, grain_ = 1, num_ranges_ = 0;
  std::atomic<int64_t> num_untaken_{0};  // below 0: those who found nothing left
};

}  // namespace lapidary

#endif  // LAPIDARY_BASE_WORKER_POOL_H_
