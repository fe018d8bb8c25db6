// lapidary bench: speed, in process or of a running server.
#include <fmt/format.h>

#include "app/bench/bench_command.h"
#include "base/result.h"

namespace lapidary {

void NeedNoFailures(const std::vector<std::string>& errors, size_t num_requests) {
  if (errors.empty()) return;
  throw StartupError(fmt::format("void: {} of {} requests failed, the first one: {}", errors.size(),
                                 num_requests, errors.front()));
}

namespace {

constexpr const Command* kBenches[] = {&kBenchThroughputCommand, &kBenchLatencyCommand};

std::function<int()> SetUpBench(CLI::App& app) { return AddCommands(app, kBenches); }

}  // namespace

const Command kBenchCommand = {"bench", "speed, in process or of a running server",
                               "lapidary bench throughput --num-prompts 16", SetUpBench};

}  // namespace lapidary
