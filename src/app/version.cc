#include <fmt/format.h>

#include "app/command.h"
#include "ops/cpu/linear.h"

namespace lapidary {
namespace {

std::function<int()> SetUpVersion(CLI::App&) {
  return [] {
    const char* instructions = "plain";
    for (int i = 0; i < cpu::kNumLinearVariants; ++i)
      if (cpu::LinearVariants()[i].supported) instructions = cpu::LinearVariants()[i].name;
    fmt::print("lapidary {} (CPU backend, {}, compiler {})\n", LAPIDARY_VERSION, instructions,
               __VERSION__);
    return 0;
  };
}

}  // namespace

const Command kVersionCommand = {"version", "print the version and the instruction set in use",
                                 "lapidary version", SetUpVersion};

}  // namespace lapidary
