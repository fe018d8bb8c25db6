// The program: one table of subcommands; start-up errors end here in one sentence.
#include <fmt/core.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "app/command.h"
#include "app/flags.h"
#include "base/log.h"
#include "base/result.h"

namespace lapidary {
namespace {

const Command* const kCommands[] = {&kServeCommand,  &kChatCommand,     &kGenerateCommand,
                                    &kRenderCommand, &kTokenizeCommand, &kVerifyCommand,
                                    &kEvalCommand,   &kBenchCommand,    &kPlanCommand,
                                    &kCheckCommand,  &kVersionCommand};

std::set<std::string> CommandNames(const CLI::App& app) {
  std::set<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    names.insert(sub->get_name());
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
                                           "--batch-invariant",
                                           "--debug-kv-bounds",
                                           "--decode-log-interval",
                                           "--default-chat-template-kwargs",
                                           "--disable-log-stats",
                                           "--download-dir",
                                           "--draft-position",
                                           "--drain-timeout",
                                           "--enable-priority-scheduling",
                                           "--health-port",
                                           "--kv-fold",
                                           "--kv-sharing-fast-prefill",
                                           "--max-num-batched-tokens",
                                           "--max-prefill-tokens",
                                           "--max-total-tokens",
                                           "--metrics-auth",
                                           "--no-kv-fold",
                                           "--num-gpu-blocks-override",
                                           "--profile-dir",
                                           "--priority-order",
                                           "--reserve-output-tokens",
                                           "--sampling-defaults",
                                           "--schedule-low-priority-values-first",
                                           "--speculative-algorithm",
                                           "--speculative-config",
                                           "--speculative-num-draft-tokens",
                                           "--swa-full-tokens-ratio"};

// `hides`: the short help is asked for. Else nothing is hidden: a hidden option has no name in
// error messages and in what /server_info tells.
void AddHelp(CLI::App& app, bool hides) {
  for (CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    AddHelp(*sub, hides);
  bool has_seldom_used = false;
  for (CLI::Option* option : app.get_options()) {
    if (!kSeldomUsed.contains(option->get_name())) continue;
    has_seldom_used = true;
    if (hides) option->group("");
  }
  if (has_seldom_used)
    app.set_help_flag("-h,--help,--help-all", "this; --help-all: the seldom used flags too");
}

// What the parser may see; the command that the first arguments name decides over the spellings.
Result<std::vector<std::string>> ArgumentsFor(const CLI::App& app, int argc, char** argv) {
  const CLI::App* named = &app;
  for (int i = 1; i < argc && argv[i][0] != '-'; ++i) {
    const std::set<std::string> names = CommandNames(*named);
    if (names.empty()) break;
    if (!names.contains(argv[i]))
      return Error{fmt::format("unknown command {}; did you mean {}?", argv[i],
                               NearestSpelling(argv[i], names)),
                   "", ""};
    named = named->get_subcommand(argv[i]);
  }
  if (named == &app) return std::vector<std::string>(argv, argv + argc);
  return PrepareArguments(argc, argv, SpellingsOf(*named));
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
  app.formatter(std::make_shared<HelpFormatter>());
  const std::function<int()> run = AddCommands(app, kCommands);
  const std::set<std::string_view> words(argv, argv + argc);
  AddHelp(app, (words.contains("-h") || words.contains("--help")) && !words.contains("--help-all"));
  app.set_version_flag("--version", std::string("lapidary ") + LAPIDARY_VERSION);
  const auto prepared = ArgumentsFor(app, argc, argv);
  if (!prepared.ok()) {
    fmt::print(stderr, "lapidary: {}\n", prepared.error().message);
    return kExitUsage;
  }
  std::vector<const char*> pointers;
  for (const std::string& arg : prepared.value()) pointers.push_back(arg.c_str());
  try {
    app.parse(static_cast<int>(pointers.size()), pointers.data());
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : kExitUsage;
  }
  return run();
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) {
  lapidary::InitLog("info");
  try {
    return lapidary::Main(argc, argv);
  } catch (const lapidary::UsageError& error) {
    std::fprintf(stderr, "lapidary: %s\n", error.what());
    return lapidary::kExitUsage;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lapidary: %s\n", error.what());
    return lapidary::kExitFailure;
  }
}
