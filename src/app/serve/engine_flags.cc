#include "app/serve/engine_flags.h"

#include <fmt/core.h>
#include <CLI/App.hpp>

#include "app/command.h"

namespace lapidary {
namespace {

void AddOrderFlags(CLI::App& app, EngineFlags& flags, EngineOptions& options) {
  app.add_option("--scheduling-policy", flags.policy, "fcfs, or priority: of the requests (fcfs)")
      ->check(CLI::IsMember({"fcfs", "priority"}));
  app.add_option_function<std::string>(
         "--schedule-policy",
         [&](const std::string& name) { options.longest_prefix_first = name == "lpm"; },
         "fcfs; lpm: longest cached prefix first (fcfs)")
      ->check(CLI::IsMember({"fcfs", "lpm"}));
  app.add_flag("--enable-priority-scheduling", flags.enables_priority,
               "the same as SGLang says it: larger values first");
  app.add_flag("--schedule-low-priority-values-first", flags.low_values_first,
               "with it: smaller values first");
  app.add_option("--priority-order", flags.priority_order, "low-first or high-first")
      ->check(CLI::IsMember({"low-first", "high-first"}));
}

std::string NameOf(PriorityOrder order, bool longest_prefix_first) {
  std::string name = longest_prefix_first ? "lpm" : "fcfs";
  if (order == PriorityOrder::kNone) return name;
  return fmt::format("priority, {} first, then {}",
                     order == PriorityOrder::kLowFirst ? "smaller" : "larger", name);
}

}  // namespace

void AddEngineFlags(CLI::App& app, EngineFlags& flags, EngineOptions& options) {
  AddOrderFlags(app, flags, options);
  app.add_flag("--async-scheduling,!--no-async-scheduling,!--disable-overlap-schedule",
               options.overlap, "plan a step while the one before runs (on)");
  app.add_option_function<std::string>(
         "--admission", [&](const std::string& name) { options.overcommit = name == "overcommit"; },
         "reserve: prompt and output; overcommit: prompts only")
      ->check(CLI::IsMember({"reserve", "overcommit"}));
  app.add_flag("--debug-kv-bounds", options.debug_kv_bounds,
               "check every page table entry before each attention");
  app.add_flag(
      "--batch-invariant,--deterministic,--enable-deterministic-inference", options.batch_invariant,
      "no bit of an answer depends on other requests; slower on a GPU, always so on a CPU");
  app.add_option("--decode-log-interval", flags.log_interval, "decode steps a log line")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_flag("!--disable-log-stats", flags.logs_steps, "no log lines of steps");
  app.add_flag("--kv-sharing-fast-prefill,!--no-kv-sharing-fast-prefill", options.fast_prefill,
               "YOCO prefill (on)");
  app.add_option("--num-threads", options.num_threads, "0: all cores")->check(CLI::Range(0, 1024));
}

PriorityOrder OrderOf(const EngineFlags& flags) {
  const bool is_on = flags.enables_priority || flags.policy == "priority";
  if (flags.enables_priority && flags.policy == "fcfs")
    throw UsageError("--scheduling-policy fcfs and --enable-priority-scheduling disagree");
  if (flags.low_values_first && flags.priority_order == "high-first")
    throw UsageError(
        "--priority-order high-first and --schedule-low-priority-values-first disagree");
  if (!is_on && (flags.low_values_first || flags.priority_order))
    throw UsageError(
        "an order of priorities needs --scheduling-policy priority or "
        "--enable-priority-scheduling");
  if (!is_on) return PriorityOrder::kNone;
  const bool low_first = flags.priority_order ? flags.priority_order == "low-first"
                                              : flags.low_values_first || !flags.enables_priority;
  return low_first ? PriorityOrder::kLowFirst : PriorityOrder::kHighFirst;
}

std::string EngineLine(const EngineFlags& flags, const EngineOptions& options) {
  const std::string reserved =
      options.overcommit ? std::string("overcommit")
                         : fmt::format("reserve {} output", options.reserved_output_tokens);
  std::string line = fmt::format(
      "engine  prefix cache {}  [--no-enable-prefix-caching]   overlap {}  "
      "[--disable-overlap-schedule]   admission {}  [--admission]   order {}  "
      "[--{}]",
      options.prefix_cache ? "on" : "off", options.overlap ? "on" : "off", reserved,
      NameOf(OrderOf(flags), options.longest_prefix_first),
      options.longest_prefix_first ? "schedule-policy" : "scheduling-policy");
  if (options.sliding_share > 0)
    line += fmt::format("   sliding pages keep {:.3f} of the slabs  [--swa-full-tokens-ratio]",
                        options.sliding_share);
  if (options.debug_kv_bounds) line += "   page tables checked  [--debug-kv-bounds]";
  return line;
}

}  // namespace lapidary
