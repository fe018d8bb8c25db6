// The subcommands of `bench`, and what they share.
#ifndef LAPIDARY_APP_BENCH_BENCH_COMMAND_H_
#define LAPIDARY_APP_BENCH_BENCH_COMMAND_H_

#include <string>
#include <vector>

#include "app/command.h"

namespace lapidary {

extern const Command kBenchThroughputCommand, kBenchLatencyCommand, kBenchServeCommand,
    kBenchKernelCommand, kBenchStepCommand;

// Where the record goes.
void AddRecordFlag(CLI::App& app, std::string& json_path);
// The same, and how often.
void AddRunFlags(CLI::App& app, int& repeats, std::string& json_path);

// A run with a request that failed is void. Throws StartupError.
void NeedNoFailures(const std::vector<std::string>& errors, size_t num_requests);

}  // namespace lapidary

#endif  // LAPIDARY_APP_BENCH_BENCH_COMMAND_H_
