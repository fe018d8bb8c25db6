// Admin: what may take a while and must not hold an io thread: one thread, a task after the other.
#ifndef LAPIDARY_SERVER_ADMIN_H_
#define LAPIDARY_SERVER_ADMIN_H_

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace lapidary {

class Admin {
 public:
  Admin();
  ~Admin();  // the task that runs ends soon; those that wait are dropped
  Admin(const Admin&) = delete;
  Admin& operator=(const Admin&) = delete;

  // False when too many wait already.
  bool Post(std::function<void()> task);
  // For tasks: waits until `is_true`, at most so long, less when the server stops. Its last value.
  bool WaitUntil(const std::function<bool()>& is_true, std::chrono::milliseconds at_most);

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;  // guarded by mutex_
  bool stop_ = false;                        // guarded by mutex_
  std::thread thread_;
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_ADMIN_H_
