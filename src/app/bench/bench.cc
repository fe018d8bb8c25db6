// lapidary bench: speed, in process or of a running server.
#include <fmt/format.h>

#include "app/bench/bench_command.h"
#include "base/result.h"

namespace lapidary {

void AddRunFlags(CLI::App& app, int& repeats, std::string& json_path) {
  app.add_option("--repeats", repeats, "runs that count, after one that does not")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--output-json,--result-filename", json_path, "the record, to this file");
}

void NeedNoFailures(const std::vector<std::string>& errors, size_t num_requests) {
  if (errors.empty()) return;
  throw StartupError(fmt::format("void: {} of {} requests failed, the first one: {}", errors.size(),
                                 num_requests, errors.front()));
}

namespace {

constexpr const Command* kBenches[] = {&kBenchServeCommand, &kBenchThroughputCommand,
                                       &kBenchLatencyCommand};

std::function<int()> SetUpBench(CLI::App& app) { return AddCommands(app, kBenches); }

}  // namespace

const Command kBenchCommand = {"bench", "speed, in process or of a running server",
                               "lapidary bench throughput --num-prompts 16", SetUpBench};

}  // namespace lapidary
