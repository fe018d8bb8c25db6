// Command: one subcommand of the program. main.cc holds the table of all.
#ifndef LAPIDARY_APP_COMMAND_H_
#define LAPIDARY_APP_COMMAND_H_

#include <functional>
#include <span>
#include <string>

#include "base/result.h"

namespace CLI {
class App;
}

namespace lapidary {

inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;

// Flags whose values cannot be, or not together; ends the process with kExitUsage.
class UsageError : public StartupError {
 public:
  using StartupError::StartupError;
};

struct Command {
  const char* name;
  const char* summary;
  const char* example;  // one line, shown under --help
  // Adds the flags to `app` and returns what to run after parsing; it may throw StartupError.
  std::function<int()> (*setup)(CLI::App& app);
};

// Adds each as a subcommand of `app`, which then needs one; returns what runs the one that was
// parsed.
std::function<int()> AddCommands(CLI::App& app, std::span<const Command* const> commands);

extern const Command kServeCommand, kChatCommand, kGenerateCommand, kVerifyCommand, kEvalCommand,
    kBenchCommand, kPlanCommand, kCheckCommand, kTokenizeCommand, kRenderCommand, kVersionCommand;

}  // namespace lapidary

#endif  // LAPIDARY_APP_COMMAND_H_
