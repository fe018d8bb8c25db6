// FailStop: how the process ends when it cannot go on (RELIABILITY.md 2): probes see it at once,
// open requests get an error, then whoever found the fault ends the process.
#ifndef LAPIDARY_APP_SERVE_FAIL_STOP_H_
#define LAPIDARY_APP_SERVE_FAIL_STOP_H_

#include <thread>

#include "server/api_server.h"

namespace lapidary {

// One at a time. From its beginning to its end, a failed CHECK in any thread and a read of weights
// that are gone tell the server's clients before the process ends. A thread of its own does it: the
// one that failed may hold any lock, or be in a signal handler.
class FailStop {
 public:
  explicit FailStop(ApiServer& server);
  ~FailStop();
  FailStop(const FailStop&) = delete;
  FailStop& operator=(const FailStop&) = delete;

 private:
  std::thread thread_;
};

}  // namespace lapidary

#endif  // LAPIDARY_APP_SERVE_FAIL_STOP_H_
