#include "app/bench/record.h"

#include <fmt/chrono.h>
#include <fmt/core.h>
#include <boost/json/value_from.hpp>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "app/model/load_model.h"
#include "app/proc.h"
#include "app/version.h"
#include "base/result.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

std::string FirstLine(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

std::string Number(double value) {
  if (value == 0) return "0";
  return fmt::format("{:.{}f}", value, value >= 1000 ? 0 : value >= 10 ? 2 : 4);
}

}  // namespace

json::object TellMachine() {
  json::object machine = {{"cpu", ProcValue("/proc/cpuinfo", "model name")},
                          {"logical_cpus", std::thread::hardware_concurrency()},
                          {"available_memory_bytes", HostDevice().free_bytes()},
                          {"instruction_set", InstructionSet()},
                          {"load_average", FirstLine("/proc/loadavg")}};
  machine["gpus"] = json::value_from(GpuNames());
  machine["nvidia_driver"] = FirstLine("/proc/driver/nvidia/version");
  return machine;
}

std::string MachineLine() {
  std::string line = fmt::format("{}, {} CPUs, {}", ProcValue("/proc/cpuinfo", "model name"),
                                 std::thread::hardware_concurrency(), InstructionSet());
  for (const std::string& gpu : GpuNames()) line += ", " + gpu;
  return line + fmt::format("   lapidary {}, commit {}", LAPIDARY_VERSION, kCommit);
}

std::string FullCommand() {
  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::string command;
  for (std::string argument; std::getline(in, argument, '\0');) {
    const bool is_plain =
        !argument.empty() && std::all_of(argument.begin(), argument.end(), [](unsigned char c) {
          return std::isalnum(c) != 0 ||
                 std::string_view("-_./=:,+@%").find(static_cast<char>(c)) !=
                     std::string_view::npos;
        });
    std::string quoted = is_plain ? argument : "'";
    if (!is_plain) {
      for (const char c : argument) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
      quoted += "'";
    }
    command += (command.empty() ? "" : " ") + quoted;
  }
  return command;
}

json::object NewRecord(const std::string& bench) {
  const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  return {{"bench", bench},
          {"time", fmt::format("{:%FT%TZ}", now)},
          {"lapidary", LAPIDARY_VERSION},
          {"commit", kCommit},
          {"command", FullCommand()},
          {"machine", TellMachine()}};
}

json::object TellCeilings(const Ceilings& ceilings) {
  return {{"read_gb_per_s", ceilings.read_gb_per_s},
          {"copy_gb_per_s", ceilings.copy_gb_per_s},
          {"tflop_per_s", ceilings.tflop_per_s}};
}

std::string CeilingsLine(const Ceilings& ceilings) {
  return fmt::format(
      "read {:.1f} GB/s, {}{:.3g} TFLOP/s", ceilings.read_gb_per_s,
      ceilings.copy_gb_per_s > 0 ? fmt::format("copy {:.1f} GB/s, ", ceilings.copy_gb_per_s) : "",
      ceilings.tflop_per_s);
}

json::object TellSpreads(const std::vector<Spread>& spreads) {
  json::object told;
  for (const Spread& spread : spreads)
    told[spread.key] = {{"median", spread.median},
                        {"min", spread.min},
                        {"max", spread.max},
                        {"runs", json::value_from(spread.runs)}};
  return told;
}

void WriteRecord(const std::string& path, const json::object& record) {
  std::ofstream out(path);
  if (out) out << json::serialize(record) << "\n";
  if (!out.flush()) throw StartupError(fmt::format("{} cannot be written", path));
}

void PrintSpreads(const std::vector<Spread>& spreads) {
  size_t runs = 0;
  for (const Spread& spread : spreads) runs = std::max(runs, spread.runs.size());
  fmt::print("{:<24}{:>12}{:>12}{:>12}   of {} run{}\n", "", "median", "min", "max", runs,
             runs == 1 ? "" : "s");
  for (const Spread& spread : spreads)
    fmt::print("{:<24}{:>12}{:>12}{:>12}\n", spread.title, Number(spread.median),
               Number(spread.min), Number(spread.max));
}

}  // namespace lapidary
