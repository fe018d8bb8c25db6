// lapidary bench kernel: each op at the shapes of the published models.
#include <fmt/format.h>
#include <CLI/App.hpp>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <set>
#include <string_view>

#include "app/bench/bench_command.h"
#include "app/bench/device/op_timer.h"
#include "app/bench/record.h"
#include "app/model/load_model.h"
#include "base/result.h"
#include "ops/cpu/cpu_ops.h"

namespace lapidary {
namespace {

constexpr const char* kSampling = "sampling";
constexpr int kSamplingRows[] = {1, 80, 256};
constexpr std::array<std::string_view, 4> kModels = {"E2B", "E4B", "26B", "31B"};
// Of a case on a CPU: more takes minutes.
constexpr int64_t kMaxCpuFlops = 50'000'000'000;

struct KernelFlags {
  std::string op, model, json_path;
  BackendKind backend = BackendKind::kAuto;
};

// Part of op/model/case.
std::string_view Part(std::string_view name, int index) {
  for (; index > 0; --index) name.remove_prefix(std::min(name.find('/'), name.size() - 1) + 1);
  return name.substr(0, name.find('/'));
}

// A case of no one model is of all.
bool Wanted(std::string_view name, const KernelFlags& flags) {
  if (!Part(name, 0).starts_with(flags.op)) return false;
  const std::string_view of = Part(name, 1);
  const bool is_of_one = std::any_of(kModels.begin(), kModels.end(),
                                     [&](std::string_view model) { return of.starts_with(model); });
  return flags.model.empty() || !is_of_one || of.starts_with(flags.model);
}

OpCases WantedCases(const KernelFlags& flags) {
  OpCases cases = AllOpCases();
  std::set<std::string> ops = {kSampling};
  std::erase_if(cases, [&](const auto& op_case) { return !op_case->in_bench(); });
  for (const auto& op_case : cases) ops.emplace(Part(op_case->Name(), 0));
  const bool is_known = std::any_of(
      ops.begin(), ops.end(), [&](const std::string& op) { return op.starts_with(flags.op); });
  if (!is_known)
    throw StartupError(fmt::format("--op {}: there are {}", flags.op, fmt::join(ops, ", ")));
  std::erase_if(cases, [&](const auto& op_case) { return !Wanted(op_case->Name(), flags); });
  return cases;
}

json::object Tell(const OpTiming& timing) {
  return {{"name", timing.name},         {"us", timing.us},
          {"gb_per_s", timing.gb_per_s}, {"tflop_per_s", timing.tflop_per_s},
          {"percent", timing.percent},   {"ceiling", timing.is_compute_bound ? "product" : "read"}};
}

int RunKernel(const KernelFlags& flags) {
  json::object record = NewRecord("kernel");
  if (!flags.json_path.empty()) WriteRecord(flags.json_path, {});
  const OpCases cases = WantedCases(flags);
  const std::shared_ptr<Ops> gpu = OpenGpuOps(flags.backend);
  const std::shared_ptr<Ops> ops = gpu ? gpu : MakeCpuOps(0);
  const Ceilings ceilings = gpu ? MeasureGpuCeilings(*gpu) : MeasureHostCeilings(0);
  fmt::print("machine   {}\nceilings  {}, of this run\n{:44}{:>11}{:>9}{:>9}   of its ceiling\n",
             MachineLine(), CeilingsLine(ceilings), "op/model/case", "us", "GB/s", "TFLOP/s");
  const OpTimer timer(*ops, ceilings);
  json::array told;
  const auto add = [&](const OpTiming& timing) {
    fmt::print("{:44}{:11.2f}{:9.1f}{:9.3f}   {:5.1f} % {}\n", timing.name, timing.us,
               timing.gb_per_s, timing.tflop_per_s, timing.percent,
               timing.is_compute_bound ? "product" : "read");
    std::fflush(stdout);
    told.push_back(Tell(timing));
  };
  int num_left_out = 0;
  for (const auto& op_case : cases) {
    if (!gpu && op_case->Flops() > kMaxCpuFlops)
      ++num_left_out;
    else
      add(timer.Measure(*op_case));
  }
  if (std::string_view(kSampling).starts_with(flags.op))
    for (const int rows : kSamplingRows)
      for (const OpTiming& timing : timer.MeasureDraws(rows)) add(timing);
  if (num_left_out > 0)
    fmt::print("{} cases of more than {:.0f} GFLOP are left out on a CPU\n", num_left_out,
               static_cast<double>(kMaxCpuFlops) * 1e-9);
  record["device"] = ops->device().name();
  record["ceilings"] = TellCeilings(ceilings);
  record["ops"] = std::move(told);
  if (!flags.json_path.empty()) WriteRecord(flags.json_path, record);
  return 0;
}

std::function<int()> SetUpKernel(CLI::App& app) {
  auto f = std::make_shared<KernelFlags>();
  app.add_option("--op", f->op, "ops whose names begin so, such as attention (all)");
  app.add_option("--model", f->model, "at the shapes of one model (all)")
      ->check(CLI::IsMember(std::vector<std::string>(kModels.begin(), kModels.end())));
  AddBackendFlag(app, f->backend);
  AddRecordFlag(app, f->json_path);
  return [f] { return RunKernel(*f); };
}

}  // namespace

const Command kBenchKernelCommand = {"kernel", "each op at the models' shapes",
                                     "lapidary bench kernel --op linear --model E2B", SetUpKernel};

}  // namespace lapidary
