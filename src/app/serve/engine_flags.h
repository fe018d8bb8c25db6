// EngineFlags: how `serve` and `bench` run their engine, in our spelling, vLLM's and SGLang's.
#ifndef LAPIDARY_APP_SERVE_ENGINE_FLAGS_H_
#define LAPIDARY_APP_SERVE_ENGINE_FLAGS_H_

#include <optional>
#include <string>

#include "engine/engine.h"
#include "server/token_engine.h"

namespace CLI {
class App;
}

namespace lapidary {

struct EngineFlags {
  // Of requests' priorities. vLLM's policy runs the smaller first, SGLang's switch the larger.
  std::optional<std::string> policy;  // fcfs, priority
  bool enables_priority = false, low_values_first = false;
  std::optional<std::string> priority_order;  // low-first, high-first
  int log_interval = 40;                      // decode steps a log line
  bool logs_steps = true;
};

void AddEngineFlags(CLI::App& app, EngineFlags& flags, EngineOptions& options);

// The order of requests that the flags name together. Throws StartupError where they disagree.
PriorityOrder OrderOf(const EngineFlags& flags);

// One line for the plan: what is on, each with its flag.
std::string EngineLine(const EngineFlags& flags, const EngineOptions& options);

}  // namespace lapidary

#endif  // LAPIDARY_APP_SERVE_ENGINE_FLAGS_H_
