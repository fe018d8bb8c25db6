// CHECK: the one assertion of the project, on in every build.
#ifndef LAPIDARY_BASE_CHECK_H_
#define LAPIDARY_BASE_CHECK_H_

#include <fmt/core.h>

#include <string>

namespace lapidary {

// Exit codes of a process that cannot go on: a broken promise of the code, and a device or a file
// of weights that failed.
inline constexpr int kExitBug = 70, kExitDevice = 71;

// Called once with the full message before the process ends so. The server installs its fail-stop
// here, so that clients and probes hear of it; without one the process prints and exits.
using CheckFailureHandler = void (*)(const std::string& message);
void SetCheckFailureHandler(CheckFailureHandler handler);

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              const std::string& message);
// Prints the message and ends the process with kExitDevice.
[[noreturn]] void DeviceFailed(const std::string& message);

}  // namespace lapidary

// CHECK(page_id < num_pages, "page {} of {}", page_id, num_pages): a broken promise is a bug and
// ends the process.
#define CHECK(condition, ...)                                                                 \
  do {                                                                                        \
    if (!(condition)) [[unlikely]]                                                            \
      ::lapidary::CheckFailed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__)); \
  } while (false)

#endif  // LAPIDARY_BASE_CHECK_H_
