// The log: spdlog to stderr. Prompts and paths of requests are never logged at default level.
#ifndef LAPIDARY_BASE_LOG_H_
#define LAPIDARY_BASE_LOG_H_

#include <spdlog/spdlog.h>

#include <string>

namespace lapidary {

// level: trace, debug, info, warn, error, off. Called once at start, before any thread logs.
void InitLog(const std::string& level);

}  // namespace lapidary

#endif  // LAPIDARY_BASE_LOG_H_
