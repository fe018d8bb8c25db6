#include "app/serve/serve_flags.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/App.hpp>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "app/command.h"
#include "io/json.h"
#include "io/mapped_file.h"

namespace lapidary {
namespace {

constexpr uint64_t kMaxKeyFileBytes = 1 << 20;

// What a client may call the model: the folder's name and what --model says.
std::vector<std::string> ServedNames(const ModelFlags& flags) {
  if (flags.model.empty()) return {"pebble"};
  std::error_code code;
  if (!std::filesystem::is_directory(flags.model, code)) return {flags.model};
  std::filesystem::path dir = std::filesystem::absolute(flags.model, code).lexically_normal();
  if (!dir.has_filename()) dir = dir.parent_path();
  if (dir.filename() == flags.model) return {flags.model};
  return {dir.filename().string(), flags.model};
}

// One key a line; the environment and the process list do not see them.
void ReadKeys(const std::string& file, std::vector<std::string>& keys) {
  const std::string text = OrThrow(ReadFile(file, kMaxKeyFileBytes));
  std::istringstream lines(text);
  const size_t before = keys.size();
  for (std::string line; std::getline(lines, line);) {
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back())) != 0)
      line.pop_back();
    if (!line.empty()) keys.push_back(std::move(line));
  }
  // A server that is open because a file was empty is what nobody meant.
  if (keys.size() == before) throw StartupError(fmt::format("{} holds no key", file));
}

void AddApiFlags(CLI::App& app, ServeFlags& flags) {
  ApiOptions& api = flags.api;
  app.add_option("--host", api.host, "address")->capture_default_str();
  app.add_option("--port", api.port, "0: any free port")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  app.add_option("--health-port", api.health_port,
                 "a second listener, with its own thread, for the health routes only")
      ->check(CLI::Range(0, 65535));
  app.add_option("--served-model-name", api.served_names,
                 "names in requests, the first in replies; '*': any");
  app.add_option("--api-key", api.api_keys, "key clients must send; repeatable")
      ->allow_extra_args(false);
  app.add_option("--api-key-file", flags.api_key_files, "file with a key a line")
      ->allow_extra_args(false);
  app.add_option("--admin-api-key", api.admin_api_key,
                 "of the admin routes (default: an API key; without any, this machine only)");
  app.add_option("--profile-dir", api.profile_dir,
                 "where /start_profile puts its traces (default: below the temporary folder)");
  app.add_flag("--admin-open", api.admin_open, "admin routes need no key");
  app.add_option_function<std::string>(
         "--metrics-auth", [&](const std::string& name) { api.metrics_need_key = name == "key"; },
         "none, or key: /metrics needs one too")
      ->check(CLI::IsMember({"none", "key"}));
  app.add_option("--max-queued-requests", flags.engine.max_queued_requests, "beyond it: 429")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--log-level,--uvicorn-log-level", flags.log_level,
                 "trace, debug, info, warning, error or critical")
      ->check([](const std::string& text) {
        return LogLevel(text) ? "" : "'" + text + "' is no log level";
      })
      ->capture_default_str();
}

void AddReplyFlags(CLI::App& app, ServeFlags& flags) {
  const CLI::IsMember parsers({"gemma4", "auto", "none"});
  app.add_option("--seed,--random-seed", flags.seed,
                 "of which requests without one draw theirs (random)");
  app.add_option("--generation-config", flags.generation_config,
                 "sampling: auto, the model's; vllm: 1.0 and no filter")
      ->check(CLI::IsMember({"auto", "vllm"}));
  app.add_option("--sampling-defaults", flags.sampling_defaults, "the same: model, openai")
      ->check(CLI::IsMember({"model", "openai"}));
  app.add_option("--default-chat-template-kwargs", flags.chat_kwargs,
                 R"(JSON, such as {"enable_thinking": true})");
  app.add_option("--reasoning-parser", flags.reasoning_parser, "none: thoughts stay in the content")
      ->check(parsers);
  app.add_option("--tool-call-parser", flags.tool_parser, "none: calls stay in the content")
      ->check(parsers);
  app.add_flag("--skip-tokenizer-init", flags.skip_tokenizer, "token ids in and out, no text");
}

}  // namespace

void AddServeFlags(CLI::App& app, ServeFlags& flags) {
  flags.api.served_names.clear();
  app.add_option("MODEL", flags.positional_model, "as --model");
  AddModelFlags(app, flags.model);
  AddLoadFlags(app, flags.model);
  AddApiFlags(app, flags);
  AddMemoryFlags(app, flags.memory, flags.engine);
  AddEngineFlags(app, flags.run, flags.engine);
  AddReplyFlags(app, flags);
  app.add_option("--drain-timeout,--shutdown-timeout", flags.drain_timeout_s,
                 "seconds to finish after SIGTERM")
      ->check(CLI::Range(0, 86400))
      ->capture_default_str();
  app.add_flag("--dry-run", flags.dry_run, "print the plan, load nothing");
}

json::object TellFlags(const CLI::App& app) {
  json::object told;
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_name();
    if (name.find("api-key") != std::string::npos || name == "--help") continue;
    const bool given = option->count() > 0;
    const std::string value =
        given ? fmt::format("{}", fmt::join(option->results(), " ")) : option->get_default_str();
    told[name] = json::object{{"value", value}, {"origin", given ? "command line" : "default"}};
  }
  return told;
}

void ResolveServeFlags(ServeFlags& flags) {
  if (flags.model.model.empty()) flags.model.model = flags.positional_model;
  std::vector<std::string>& names = flags.api.served_names;
  flags.api.serves_any_name = std::erase(names, "*") > 0;
  if (names.empty()) names = ServedNames(flags.model);
  for (const std::string& file : flags.api_key_files) ReadKeys(file, flags.api.api_keys);
  for (const std::string& key : flags.api.api_keys)
    if (key.empty()) throw UsageError("--api-key must not be empty");
  ReadChatKwargs(flags.chat_kwargs);
  flags.order = OrderOf(flags.run);
  flags.engine.log_interval = flags.run.logs_steps ? flags.run.log_interval : 0;
}

RenderOptions ReadChatKwargs(const std::string& text) {
  RenderOptions options;
  if (text.empty()) return options;
  constexpr const char* kFlag = "--default-chat-template-kwargs";
  const Result<json::value> parsed = ParseJson(text, kFlag);
  if (!parsed.ok()) throw UsageError(parsed.error().message);
  if (!parsed.value().is_object()) throw UsageError(fmt::format("{} must be a JSON object", kFlag));
  for (const auto& [key, value] : parsed.value().get_object()) {
    bool* option = key == "enable_thinking"     ? &options.enable_thinking
                   : key == "preserve_thinking" ? &options.preserve_thinking
                                                : nullptr;
    if (option == nullptr || !value.is_bool())
      throw UsageError(fmt::format(
          "{}: '{}' is not understood; enable_thinking and preserve_thinking take true or false",
          kFlag, std::string_view(key.substr(0, 40))));
    *option = value.get_bool();
  }
  return options;
}

std::optional<std::string> LogLevel(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (text == "warning") return "warn";
  if (text == "error") return "err";
  if (text == "trace" || text == "debug" || text == "info" || text == "warn" || text == "critical")
    return text;
  return std::nullopt;
}

}  // namespace lapidary
