// The program: one table of subcommands; start-up errors end here in one sentence.
#include <fmt/format.h>

#include <cstdio>

#include "app/command.h"
#include "app/flags.h"
#include "base/log.h"
#include "base/result.h"

namespace lapidary {
namespace {

const Command* const kCommands[] = {
    &kServeCommand,  &kChatCommand, &kGenerateCommand, &kRenderCommand, &kTokenizeCommand,
    &kVerifyCommand, &kEvalCommand, &kPlanCommand,     &kCheckCommand,  &kVersionCommand};

std::set<std::string> SpellingsOf(const CLI::App& app) {
  std::set<std::string> spellings;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) spellings.insert("--" + name);
    for (const std::string& name : option->get_snames()) spellings.insert("-" + name);
  }
  return spellings;
}

int Main(int argc, char** argv) {
  CLI::App app("Lapidary serves Google's Gemma 4 models.", "lapidary");
  app.require_subcommand(1);
  std::vector<std::pair<CLI::App*, std::function<int()>>> runs;
  for (const Command* command : kCommands) {
    CLI::App* sub = app.add_subcommand(command->name, command->summary);
    sub->footer(fmt::format("Example: {}", command->example));
    runs.emplace_back(sub, command->setup(*sub));
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
