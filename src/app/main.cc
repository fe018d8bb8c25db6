// The program: one table of subcommands; start-up errors end here in one sentence.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "app/command.h"
#include "app/flags.h"
#include "base/log.h"
#include "base/result.h"

namespace lapidary {
namespace {

const Command* const kCommands[] = {
    &kServeCommand,  &kChatCommand, &kGenerateCommand, &kRenderCommand, &kTokenizeCommand,
    &kVerifyCommand, &kEvalCommand, &kPlanCommand,     &kCheckCommand,  &kVersionCommand};

std::set<std::string> CommandNames() {
  std::set<std::string> names;
  for (const Command* command : kCommands) names.insert(command->name);
  return names;
}

std::set<std::string> SpellingsOf(const CLI::App& app) {
  std::set<std::string> spellings;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) spellings.insert("--" + name);
    for (const std::string& name : option->get_snames()) spellings.insert("-" + name);
  }
  return spellings;
}

// Flags that few need, and other spellings of more usual ones: shown by --help-all only.
const std::set<std::string> kSeldomUsed = {"--admin-api-key",
                                           "--admin-open",
                                           "--api-key-file",
                                           "--async-scheduling",
                                           "--debug-kv-bounds",
                                           "--decode-log-interval",
                                           "--default-chat-template-kwargs",
                                           "--disable-log-stats",
                                           "--download-dir",
                                           "--draft-position",
                                           "--drain-timeout",
                                           "--enable-priority-scheduling",
                                           "--health-port",
                                           "--kv-sharing-fast-prefill",
                                           "--max-num-batched-tokens",
                                           "--max-prefill-tokens",
                                           "--max-total-tokens",
                                           "--metrics-auth",
                                           "--num-gpu-blocks-override",
                                           "--priority-order",
                                           "--sampling-defaults",
                                           "--schedule-low-priority-values-first",
                                           "--speculative-algorithm",
                                           "--speculative-config",
                                           "--speculative-num-draft-tokens",
                                           "--swa-full-tokens-ratio"};

void AddHelp(CLI::App& app, bool all) {
  bool hides = false;
  for (CLI::Option* option : app.get_options()) {
    if (!kSeldomUsed.contains(option->get_name())) continue;
    hides = true;
    if (!all) option->group("");
  }
  if (hides)
    app.set_help_flag("-h,--help,--help-all", "this; --help-all: the seldom used flags too");
}

// One line an option: its names, the kind of its value and its default.
class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter() { column_width(44); }
  std::string make_option_opts(const CLI::Option* option) const override {
    if (option->get_type_size() == 0) return "";
    std::string type = option->get_type_name();
    type.resize(std::min(type.find(':'), type.size()));
    return " " + type + (option->get_default_str().empty() ? "" : "=" + option->get_default_str());
  }
};

int Main(int argc, char** argv) {
  CLI::App app("Lapidary serves Google's Gemma 4 models.", "lapidary");
  app.require_subcommand(1);
  app.formatter(std::make_shared<HelpFormatter>());
  std::vector<std::pair<CLI::App*, std::function<int()>>> runs;
  for (const Command* command : kCommands) {
    CLI::App* sub = app.add_subcommand(command->name, command->summary);
    sub->footer(fmt::format("Example: {}", command->example));
    runs.emplace_back(sub, command->setup(*sub));
    AddHelp(*sub, std::find(argv, argv + argc, std::string_view("--help-all")) != argv + argc);
  }
  app.set_version_flag("--version", std::string("lapidary ") + LAPIDARY_VERSION);
  if (argc >= 2 && argv[1][0] != '-' && !CommandNames().contains(argv[1])) {
    fmt::print(stderr, "lapidary: unknown command {}; did you mean {}?\n", argv[1],
               NearestSpelling(argv[1], CommandNames()));
    return kExitUsage;
  }
  std::vector<std::string> args(argv, argv + argc);
  for (const auto& [sub, run] : runs) {
    if (argc < 2 || sub->get_name() != argv[1]) continue;
    auto prepared = PrepareArguments(argc, argv, SpellingsOf(*sub));
    if (!prepared.ok()) {
      fmt::print(stderr, "lapidary: {}\n", prepared.error().message);
      return kExitUsage;
    }
    args = std::move(prepared).value();
  }
  std::vector<const char*> pointers;
  for (const std::string& arg : args) pointers.push_back(arg.c_str());
  try {
    app.parse(static_cast<int>(pointers.size()), pointers.data());
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : kExitUsage;
  }
  for (const auto& [sub, run] : runs)
    if (sub->parsed()) return run();
  return kExitUsage;
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) {
  lapidary::InitLog("info");
  try {
    return lapidary::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lapidary: %s\n", error.what());
    return lapidary::kExitFailure;
  }
}
