#include "app/serve/fail_stop.h"

#include <fmt/core.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

#include "base/check.h"
#include "io/sigbus_guard.h"

namespace lapidary {
namespace {

constexpr int kWaitMs = 1500;  // for the watching thread, which takes at most one second

// Plain data that a signal handler may use.
std::atomic<int> wake_pipe{-1};
std::atomic<bool> is_told{false};

void Sleep1Ms() {
  const timespec pause{0, 1'000'000};
  nanosleep(&pause, nullptr);
}

// Async-signal-safe. Returns when the clients know, or it takes too long.
void TellClients() {
  const int pipe = wake_pipe.exchange(-1);
  if (pipe >= 0 && write(pipe, "f", 1) != 1) return;
  for (int waited_ms = 0; waited_ms < kWaitMs && !is_told; ++waited_ms) Sleep1Ms();
}

}  // namespace

FailStop::FailStop(ApiServer& server) {
  int ends[2];
  CHECK(pipe(ends) == 0, "no pipe");
  is_told = false;
  wake_pipe = ends[1];
  thread_ = std::thread([&server, in = ends[0], out = ends[1]] {
    char why = 0;
    if (read(in, &why, 1) == 1 && why == 'f') {
      fmt::print(stderr, "failing {} requests are told\n", server.num_live());
      server.Fail();
      is_told = true;
    }
    close(in), close(out);
  });
  SetCheckFailureHandler([](const std::string&) { TellClients(); });
  SetWeightFaultHook([](const char*) { TellClients(); });
}

FailStop::~FailStop() {
  SetCheckFailureHandler(nullptr);
  SetWeightFaultHook(nullptr);
  if (const int pipe = wake_pipe.exchange(-1); pipe >= 0 && write(pipe, "e", 1) != 1)
    _exit(kExitBug);
  thread_.join();
}

}  // namespace lapidary
