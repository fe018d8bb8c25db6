// Record: what a bench run leaves behind: where it ran, what was run, and its figures.
#ifndef LAPIDARY_APP_BENCH_RECORD_H_
#define LAPIDARY_APP_BENCH_RECORD_H_

#include <string>
#include <vector>

#include "app/bench/metrics.h"
#include "io/json.h"
#include "ops/ceilings.h"

namespace lapidary {

// CPU, memory, GPUs and their driver as the kernel tells them.
json::object TellMachine();
// One line of it.
std::string MachineLine();

// The arguments this process was started with, quoted where a shell would need it.
std::string FullCommand();

// Machine, version, commit, command and time; the caller adds the rest.
json::object NewRecord(const std::string& bench);
// What the device reads and multiplies, as measured in the run.
json::object TellCeilings(const Ceilings& ceilings);
std::string CeilingsLine(const Ceilings& ceilings);
json::object TellSpreads(const std::vector<Spread>& spreads);

// Throws StartupError where the file cannot be written; call once before a long run, too.
void WriteRecord(const std::string& path, const json::object& record);

// A table on stdout: each figure's median, min and max over the runs.
void PrintSpreads(const std::vector<Spread>& spreads);

}  // namespace lapidary

#endif  // LAPIDARY_APP_BENCH_RECORD_H_
