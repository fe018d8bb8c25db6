// lapidary bench latency: one request at a time; with and without drafts in turn.
#include <fmt/core.h>
#include <CLI/App.hpp>

#include <algorithm>
#include <memory>

#include "app/bench/bench_command.h"
#include "app/bench/bench_engine.h"
#include "app/bench/record.h"

namespace lapidary {
namespace {

struct LatencyFlags {
  BenchFlags bench;
  size_t batch_size = 1;
  bool compares_drafts = false;
};

// Runs of one kind: with the engine's drafts or without any.
struct Side {
  const char* name;
  std::optional<int> max_drafts;
  std::vector<std::vector<Figure>> figures;
};

std::vector<double> RunsOf(const std::vector<Spread>& spreads, const std::string& key) {
  for (const Spread& spread : spreads)
    if (spread.key == key) return spread.runs;
  throw StartupError("no answer has two tokens: there is no decoding to compare");
}

// Drafts must change no token.
void NeedEqual(const std::vector<std::vector<int32_t>>& outputs,
               const std::vector<std::vector<int32_t>>& others) {
  for (size_t i = 0; i < outputs.size(); ++i)
    if (outputs[i] != others[i])
      throw StartupError(
          fmt::format("request {}: its tokens with drafts differ from those without", i + 1));
}

// Prints both sides and how much faster the first decodes; tells the record.
void Compare(const std::vector<Side>& sides, json::object& record) {
  const std::string key = "decode_tok_per_s_a_request";
  std::vector<double> medians, spreads_in_percent;
  json::object told;
  for (const Side& side : sides) {
    const std::vector<Spread> spreads = SpreadsOf(side.figures);
    fmt::print("\n{}\n", side.name);
    PrintSpreads(spreads);
    told[side.name] = TellSpreads(spreads);
    const Distribution runs = Describe(RunsOf(spreads, key));
    medians.push_back(runs.median);
    spreads_in_percent.push_back(100 * (runs.max - runs.min) / runs.median);
  }
  const double ratio = medians[0] / medians[1];
  fmt::print(
      "\ndecode speed with drafts / without: {:.3f} (medians of {} interleaved runs each; spread "
      "{:.1f} and {:.1f} %)   outputs equal: yes\n",
      ratio, sides[0].figures.size(), spreads_in_percent[0], spreads_in_percent[1]);
  record["figures"] = std::move(told);
  record["decode_speed_ratio"] = ratio;
  record["outputs_equal"] = true;
}

int RunLatency(const LatencyFlags& flags) {
  const BenchFlags& bench = flags.bench;
  json::object record = NewRecord("latency");
  if (!bench.json_path.empty()) WriteRecord(bench.json_path, {});
  BenchEngine engine(bench);
  if (flags.compares_drafts && !engine.has_drafter())
    throw StartupError("--compare-drafts needs a drafter: --draft-model");
  const std::vector<BenchRequest> requests = engine.MakeRequests();
  fmt::print("machine   {}\nengine    {}\nworkload  {}, {} at a time\n", MachineLine(),
             engine.Line(), WorkloadLine(bench.workload, requests), flags.batch_size);
  std::vector<Side> sides = {{"with drafts", std::nullopt, {}}};
  if (flags.compares_drafts) sides.push_back({"without drafts", 0, {}});
  std::vector<std::vector<int32_t>> outputs;
  for (int i = 0; i <= bench.repeats; ++i)
    for (Side& side : sides) {
      RunOptions options;
      options.concurrency = flags.batch_size;
      options.max_drafts = side.max_drafts;
      options.label = fmt::format(
          "{}{}", i == 0 ? "first run, not counted" : fmt::format("run {}/{}", i, bench.repeats),
          sides.size() > 1 ? fmt::format(", {}", side.name) : "");
      EngineRun run = engine.Run(requests, options);
      NeedNoFailures(run.errors, requests.size());
      if (outputs.empty()) outputs = run.outputs;
      NeedEqual(outputs, run.outputs);
      if (i > 0) side.figures.push_back(run.figures());
    }
  record["engine"] = engine.Tell();
  record["workload"] = TellWorkload(bench.workload, requests);
  record["batch_size"] = flags.batch_size;
  record["repeats"] = bench.repeats;
  record["failed"] = 0;
  if (flags.compares_drafts) {
    Compare(sides, record);
  } else {
    const std::vector<Spread> spreads = SpreadsOf(sides[0].figures);
    PrintSpreads(spreads);
    JudgeRouting(spreads, record);
    record["figures"] = TellSpreads(spreads);
  }
  if (!bench.json_path.empty()) WriteRecord(bench.json_path, record);
  return 0;
}

std::function<int()> SetUpLatency(CLI::App& app) {
  auto f = std::make_shared<LatencyFlags>();
  f->bench.workload.input = {1000, 1000};
  f->bench.workload.output = {256, 256};
  f->bench.workload.num_requests = 3;
  AddBenchFlags(app, f->bench);
  app.add_option("--batch-size", f->batch_size, "requests at a time")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_flag("--compare-drafts", f->compares_drafts,
               "with and without drafts in turn, and the ratio");
  return [f] { return RunLatency(*f); };
}

}  // namespace

const Command kBenchLatencyCommand = {
    "latency", "one request at a time, in process",
    "lapidary bench latency --compare-drafts --prompts models/pebble/skills.jsonl", SetUpLatency};

}  // namespace lapidary
