#include "base/check.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>

namespace lapidary {
namespace {

std::atomic<CheckFailureHandler> failure_handler{nullptr};

[[noreturn]] void End(const std::string& text, int exit_code) {
  std::fprintf(stderr, "%s\n", text.c_str());
  std::fflush(stderr);
  // Taken once: a CHECK that fails inside the handler must not call it again.
  if (CheckFailureHandler handler = failure_handler.exchange(nullptr)) handler(text);
  _exit(exit_code);
}

}  // namespace

void SetCheckFailureHandler(CheckFailureHandler handler) { failure_handler.store(handler); }

void CheckFailed(const char* file, int line, const char* condition, const std::string& message) {
  const char* slash = std::strrchr(file, '/');
  const std::string text = fmt::format("check failed at {}:{}: {}{}{}", slash ? slash + 1 : file,
                                       line, condition, message.empty() ? "" : ": ", message);
  End(text, kExitBug);
}

void DeviceFailed(const std::string& message) { End("device failed: " + message, kExitDevice); }

}  // namespace lapidary
