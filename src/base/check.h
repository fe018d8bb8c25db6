// CHECK: the one assertion of the project, on in every build.
#ifndef LAPIDARY_BASE_CHECK_H_
#define LAPIDARY_BASE_CHECK_H_

#include <fmt/core.h>

#include <string>

namespace lapidary {

// Called once with the full message of a failed CHECK before the process ends. The server installs
// its fail-stop here, so that clients and probes hear of it; without one the process prints and
// exits 70.
using CheckFailureHandler = void (*)(const std::string& message);
void SetCheckFailureHandler(CheckFailureHandler handler);

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              const std::string& message);

}  // namespace lapidary

// CHECK(page_id < num_pages, "page {} of {}", page_id, num_pages): a broken promise is a bug and
// ends the process.
#define CHECK(condition, ...)                                                                 \
  do {                                                                                        \
    if (!(condition)) [[unlikely]]                                                            \
      ::lapidary::CheckFailed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__)); \
  } while (false)

#endif  // LAPIDARY_BASE_CHECK_H_
