// lapidary bench step: a decode step's time over batch and context beside its bound.
#include <fmt/core.h>
#include <CLI/App.hpp>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <vector>

#include "app/bench/bench_command.h"
#include "app/bench/bound.h"
#include "app/bench/device/growth.h"
#include "app/bench/device/step_timer.h"
#include "app/bench/record.h"
#include "app/model/load_model.h"
#include "app/plan/memory_plan.h"
#include "base/result.h"
#include "ops/cpu/cpu_ops.h"

namespace lapidary {
namespace {

constexpr double kMaxExcess = 1.6;

struct StepFlags {
  ModelFlags model;
  std::vector<int> batches = {1, 8, 32, 80, 256}, contexts = {128, 2048, 32768};
  KvFold fold = KvFold::kAuto;
  bool products = false;
  std::string json_path;
};

json::object Tell(const StepPoint& point) {
  return {{"batch", point.batch},
          {"context", point.context},
          {"ms", point.ms},
          {"bound_ms", point.bound_ms},
          {"percent_of_bound", 100 * point.bound_ms / point.ms}};
}

json::object TellProducts(const ProductTime& products, const Ceilings& ceilings) {
  const double gb_per_s = products.weight_bytes / products.ms * 1e-6;
  return {{"ms", products.ms},
          {"weight_bytes", products.weight_bytes},
          {"gb_per_s", gb_per_s},
          {"percent_of_read", 100 * gb_per_s / ceilings.read_gb_per_s}};
}

// Prints how time grew, and whether as it should; for the record.
json::object Judge(const std::vector<StepPoint>& points) {
  const Growth growth = GrowthOf(points);
  const bool passes = growth.excess <= kMaxExcess;
  fmt::print(
      "growth    {}: a step takes at most {:.2f} times the first one of its line and what the "
      "bound grew (limit {})",
      passes ? "PASS" : "FAIL", growth.excess, kMaxExcess);
  json::object told = {{"excess", growth.excess},
                       {"limit", kMaxExcess},
                       {"passes", passes},
                       {"slope", growth.slope}};
  if (growth.excess > 1) {
    fmt::print(": batch {}, context {} from batch {}, context {}", growth.at.batch,
               growth.at.context, growth.from.batch, growth.from.context);
    told["from"] = Tell(growth.from);
    told["at"] = Tell(growth.at);
  }
  fmt::print("; steepest {:.2f} times the bound\n", growth.slope);
  return told;
}

void Print(const StepPoint& point, const json::object& told) {
  fmt::print("{:>6}{:>9}{:>11.3f}{:>11.3f}{:>8.1f}", point.batch, point.context, point.ms,
             point.bound_ms, 100 * point.bound_ms / point.ms);
  if (const json::value* products = told.if_contains("products"))
    fmt::print("{:>14.3f}{:>9.1f}{:>8.1f}", products->at("ms").as_double(),
               products->at("gb_per_s").as_double(), products->at("percent_of_read").as_double());
  fmt::print("\n");
  std::fflush(stdout);
}

int RunStep(const StepFlags& flags) {
  json::object record = NewRecord("step");
  if (!flags.json_path.empty()) WriteRecord(flags.json_path, {});
  LoadOptions load;
  load.ops = OpenGpuOps(flags.model.backend);
  const bool is_cpu = load.ops == nullptr;
  if (is_cpu && flags.products) throw StartupError("--products needs a GPU");
  const Ceilings ceilings = is_cpu ? MeasureHostCeilings(0) : MeasureGpuCeilings(*load.ops);
  if (ceilings.read_gb_per_s == 0)
    throw StartupError("this machine has no vector instructions that its ceilings are known by");
  const LoadedModel model = LoadModel(flags.model, load);
  const ModelConfig& config = model.target->config;
  const std::shared_ptr<Ops> ops = is_cpu ? MakeCpuOps(0) : load.ops;
  const std::string name =
      std::filesystem::absolute(model.dir).lexically_normal().filename().string();
  fmt::print(
      "machine   {}\nmodel     {}\nceilings  {}, of this run\n{:>6}{:>9}{:>11}{:>11}{:>8}{}\n",
      MachineLine(), name, CeilingsLine(ceilings), "batch", "context", "step ms", "bound ms", "%",
      flags.products ? "   products ms     GB/s  % read" : "");
  const bool folds = ChooseKvFold(config, flags.fold, !is_cpu).folds;
  StepTimer timer(*model.target, *ops, folds, std::ranges::max(flags.batches),
                  std::ranges::max(flags.contexts));
  const ModelWork work(config, ops->dtype(), folds, true);
  std::vector<StepPoint> points;
  json::array told;
  int num_unfit = 0;
  for (const int context : flags.contexts)
    for (const int batch : flags.batches) {
      if (!timer.Fits(batch, context)) {
        ++num_unfit;
        continue;
      }
      const StepPoint point = {batch, context, timer.MeasureStep(batch, context),
                               1e3 * work.Decode(batch, 1, context).SecondsAt(ceilings)};
      json::object& line = told.emplace_back(Tell(point)).as_object();
      if (flags.products)
        line["products"] = TellProducts(timer.MeasureProducts(batch, context), ceilings);
      Print(point, line);
      points.push_back(point);
    }
  if (num_unfit > 0) fmt::print("{} steps whose KV does not fit are left out\n", num_unfit);
  record["model"] = name;
  record["device"] = ops->device().name();
  record["ceilings"] = TellCeilings(ceilings);
  record["kv_folded"] = folds;
  record["points"] = std::move(told);
  if (points.size() > 1) record["growth"] = Judge(points);
  if (!flags.json_path.empty()) WriteRecord(flags.json_path, record);
  return 0;
}

void AddSizes(CLI::App& app, const char* flag, std::vector<int>& sizes, int most,
              const char* text) {
  app.add_option(flag, sizes, text)
      ->delimiter(',')
      ->check(CLI::Range(1, most))
      ->capture_default_str();
}

std::function<int()> SetUpStep(CLI::App& app) {
  auto f = std::make_shared<StepFlags>();
  f->model.asked_drafts = 0;
  AddModelFlags(app, f->model);
  AddBackendFlag(app, f->model.backend);
  app.add_option("--load-format", f->model.load_format, "auto, or dummy: random weights")
      ->check(CLI::IsMember({"auto", "dummy"}));
  AddKvFoldFlag(app, f->fold);
  AddSizes(app, "--batch", f->batches, 1024, "sequences of a step, each of these");
  AddSizes(app, "--context", f->contexts, 1 << 20, "keys that each sees, with each of these");
  app.add_flag("--products", f->products, "and a step without its dense products (a GPU)");
  AddRecordFlag(app, f->json_path);
  return [f] { return RunStep(*f); };
}

}  // namespace

const Command kBenchStepCommand = {
    "step", "a decode step over batch and context",
    "lapidary bench step --load-format dummy --batch 1,8,80 --context 128,2048", SetUpStep};

}  // namespace lapidary
