#include "app/command.h"

#include <fmt/core.h>
#include <CLI/CLI.hpp>

#include <utility>
#include <vector>

namespace lapidary {

std::function<int()> AddCommands(CLI::App& app, std::span<const Command* const> commands) {
  app.require_subcommand(1);
  std::vector<std::pair<const CLI::App*, std::function<int()>>> runs;
  for (const Command* command : commands) {
    CLI::App* sub = app.add_subcommand(command->name, command->summary);
    sub->footer(fmt::format("Example: {}", command->example));
    runs.emplace_back(sub, command->setup(*sub));
  }
  return [runs = std::move(runs)] {
    for (const auto& [sub, run] : runs)
      if (sub->parsed()) return run();
    return kExitUsage;
  };
}

}  // namespace lapidary
