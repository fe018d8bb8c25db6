// lapidary bench: speed, in process, of a running server, or of single ops and steps.
#include <fmt/core.h>
#include <CLI/App.hpp>

#include "app/bench/bench_command.h"
#include "base/result.h"

namespace lapidary {

void AddRecordFlag(CLI::App& app, std::string& json_path) {
  app.add_option("--output-json,--result-filename", json_path, "the record, to this file");
}

void AddRunFlags(CLI::App& app, int& repeats, std::string& json_path) {
  app.add_option("--repeats", repeats, "runs that count, after one that does not")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  AddRecordFlag(app, json_path);
}

void NeedNoFailures(const std::vector<std::string>& errors, size_t num_requests) {
  if (errors.empty()) return;
  throw StartupError(fmt::format("void: {} of {} requests failed, the first one: {}", errors.size(),
                                 num_requests, errors.front()));
}

namespace {

constexpr const Command* kBenches[] = {&kBenchServeCommand, &kBenchThroughputCommand,
                                       &kBenchLatencyCommand, &kBenchKernelCommand,
                                       &kBenchStepCommand};

std::function<int()> SetUpBench(CLI::App& app) { return AddCommands(app, kBenches); }

}  // namespace

const Command kBenchCommand = {"bench", "speed: in process, of a running server, of ops and steps",
                               "lapidary bench throughput --num-prompts 16", SetUpBench};

}  // namespace lapidary
