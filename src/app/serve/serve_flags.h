// ServeFlags: everything `serve` can be told.
#ifndef LAPIDARY_APP_SERVE_SERVE_FLAGS_H_
#define LAPIDARY_APP_SERVE_SERVE_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "app/model/load_model.h"
#include "app/plan/memory_plan.h"
#include "app/serve/engine_flags.h"
#include "server/api_server.h"

namespace CLI {
class App;
}

namespace lapidary {

struct ServeFlags {
  ModelFlags model;
  std::string positional_model;
  ApiOptions api;
  std::vector<std::string> api_key_files;
  MemoryFlags memory;
  EngineFlags run;
  PriorityOrder order = PriorityOrder::kNone;  // what `run` says
  EngineOptions engine;
  std::optional<int64_t> seed;
  std::string generation_config = "auto", sampling_defaults = "model";
  std::string chat_kwargs;  // JSON
  std::string reasoning_parser = "auto", tool_parser = "auto";
  std::string log_level = "info";
  int drain_timeout_s = 25;
  bool skip_tokenizer = false, dry_run = false;
  json::object told;  // TellFlags
};

void AddServeFlags(CLI::App& app, ServeFlags& flags);

// Reads what the flags name and checks what CLI11 cannot: keys, served names, template switches.
// Throws StartupError.
void ResolveServeFlags(ServeFlags& flags);

// Every flag with its value and where it comes from; keys are not told. For /server_info.
json::object TellFlags(const CLI::App& app);

// The switches of --default-chat-template-kwargs. Throws StartupError.
RenderOptions ReadChatKwargs(const std::string& text);

// "info" of "INFO", "warn" of "warning", "err" of "error"; nothing for a word that is no level.
std::optional<std::string> LogLevel(std::string text);

}  // namespace lapidary

#endif  // LAPIDARY_APP_SERVE_SERVE_FLAGS_H_
