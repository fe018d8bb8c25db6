#include "app/version.h"

#include <fmt/core.h>

#include "app/command.h"
#include "ops/cpu/linear.h"
#include "ops/gpu_ops.h"

namespace lapidary {

const char* InstructionSet() { return cpu::BestLinearVariant().name; }

namespace {

std::function<int()> SetUpVersion(CLI::App&) {
  return [] {
    fmt::print("lapidary {}, commit {} ({}, {}, compiler {})\n", LAPIDARY_VERSION, kCommit,
               HasCudaBackend() ? "CPU and CUDA backends" : "CPU backend", InstructionSet(),
               __VERSION__);
    return 0;
  };
}

}  // namespace

const Command kVersionCommand = {"version", "print the version and the instruction set in use",
                                 "lapidary version", SetUpVersion};

}  // namespace lapidary
