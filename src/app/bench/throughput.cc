// lapidary bench throughput: all requests handed to an engine in this process at once.
#include <fmt/core.h>

#include <memory>

#include "app/bench/bench_command.h"
#include "app/bench/bench_engine.h"
#include "app/bench/record.h"

namespace lapidary {
namespace {

int RunThroughput(const BenchFlags& flags) {
  json::object record = NewRecord("throughput");
  if (!flags.json_path.empty()) WriteRecord(flags.json_path, {});
  BenchEngine engine(flags);
  const std::vector<BenchRequest> requests = engine.MakeRequests();
  fmt::print("machine   {}\nengine    {}\nworkload  {}, all at once\n", MachineLine(),
             engine.Line(), WorkloadLine(flags.workload, requests));
  std::vector<std::vector<Figure>> figures;
  for (int i = 0; i <= flags.repeats; ++i) {
    RunOptions options;
    options.label = i == 0 ? "short run, not counted" : fmt::format("run {}/{}", i, flags.repeats);
    const std::vector<BenchRequest> these = i == 0 ? ShortWorkload(requests) : requests;
    const EngineRun run = engine.Run(these, options);
    NeedNoFailures(run.errors, these.size());
    if (i > 0) figures.push_back(run.figures());
  }
  const std::vector<Spread> spreads = SpreadsOf(figures);
  PrintSpreads(spreads);
  JudgeRouting(spreads, record);
  record["engine"] = engine.Tell();
  record["workload"] = TellWorkload(flags.workload, requests);
  record["repeats"] = flags.repeats;
  record["failed"] = 0;
  record["figures"] = TellSpreads(spreads);
  if (!flags.json_path.empty()) WriteRecord(flags.json_path, record);
  return 0;
}

std::function<int()> SetUpThroughput(CLI::App& app) {
  auto f = std::make_shared<BenchFlags>();
  f->workload.input = f->workload.output = {1000, 1000};
  f->workload.num_requests = 80;
  AddBenchFlags(app, *f);
  return [f] { return RunThroughput(*f); };
}

}  // namespace

const Command kBenchThroughputCommand = {
    "throughput", "all requests at once, in process",
    "lapidary bench throughput --input-len 100 --output-len 100 --num-prompts 16", SetUpThroughput};

}  // namespace lapidary
