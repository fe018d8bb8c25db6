// The log: lines on stderr, thread-safe. Prompts and paths of requests are never logged at default
// level. spdlog writes them; its header, and the formatting into its own buffers, cost a compiler
// five seconds a file, so that log.cc alone includes it.
#ifndef LAPIDARY_BASE_LOG_H_
#define LAPIDARY_BASE_LOG_H_

#include <fmt/core.h>

#include <cstdint>
#include <string>
#include <utility>

namespace lapidary {

// level: trace, debug, info, warn, error, off. Called once at start, before any thread logs.
void InitLog(const std::string& level);
void SetLogLevel(const std::string& level);

enum class LogKind : uint8_t { kInfo, kWarning, kError };
void LogLine(LogKind kind, const std::string& line);

// LogInfo("{} slabs of {} bytes", num_slabs, slab_bytes).
template <typename... Args>
void LogInfo(fmt::format_string<Args...> format, Args&&... args) {
  LogLine(LogKind::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void LogWarning(fmt::format_string<Args...> format, Args&&... args) {
  LogLine(LogKind::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void LogError(fmt::format_string<Args...> format, Args&&... args) {
  LogLine(LogKind::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace lapidary

#endif  // LAPIDARY_BASE_LOG_H_
