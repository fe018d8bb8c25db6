// lapidary verify: a checkpoint against expected values of the reference implementation.
#include <fmt/core.h>
#include <CLI/App.hpp>

#include <cstdio>
#include <filesystem>

#include "app/command.h"
#include "app/model/find_model.h"
#include "app/model/load_model.h"
#include "app/plan/memory_plan.h"
#include "app/verify/golden_check.h"
#include "io/safetensors.h"
#include "ops/cpu/cpu_ops.h"

namespace lapidary {

namespace {

struct VerifyFlags {
  std::string model, draft_model, goldens;
  BackendKind backend = BackendKind::kCpu;
  GoldenCheck::Options check;
  std::string dtype = "auto";
  int num_threads = 0;
};

// Of activations and KV.
DType RunType(const VerifyFlags& flags, Ops& ops) {
  const DType dtype = flags.dtype == "auto"
                          ? ops.dtype()
                          : (flags.dtype == "bfloat16" ? DType::kBf16 : DType::kF32);
  if (dtype == DType::kF32 && !ops.device().is_host())
    throw StartupError("--dtype float32 is for --backend cpu: a GPU computes in bf16");
  return dtype;
}

int RunVerify(const VerifyFlags& flags) {
  LoadOptions load;
  load.ops = OpenGpuOps(flags.backend);
  const std::shared_ptr<Ops> ops = load.ops != nullptr ? load.ops : MakeCpuOps(flags.num_threads);
  const std::unique_ptr<Checkpoint> target = OrThrow(LoadCheckpoint(flags.model, load));
  if (target->config.is_drafter)
    throw StartupError(
        "--model is an assistant; give the target here and the assistant as --draft-model");
  std::optional<std::filesystem::path> draft_dir;
  if (!flags.draft_model.empty())
    draft_dir = flags.draft_model;
  else
    draft_dir = FindDrafter(flags.model, target->config).dir;
  std::unique_ptr<Checkpoint> drafter;
  if (draft_dir) {
    drafter = OrThrow(LoadCheckpoint(*draft_dir, load));
    OrThrow(CheckDrafterFits(target->config, drafter->config));
  }
  GoldenCheck::Options options = flags.check;
  options.dtype = RunType(flags, *ops);
  const Safetensors file = OrThrow(Safetensors::Open(flags.goldens));
  GoldenCheck check(*target, drafter.get(), *ops, options,
                    [](const std::string& line) { fmt::print("{}\n", line); });
  const CheckCounts counts = OrThrow(check.Run(ReadGoldens(file)));
  fmt::print("{} passed, {} failed, {} skipped\n", counts.passed, counts.failed, counts.skipped);
  return counts.failed == 0 ? 0 : kExitFailure;
}

std::function<int()> SetUpVerify(CLI::App& app) {
  auto flags = std::make_shared<VerifyFlags>();
  app.add_option("--model,--model-path", flags->model, "checkpoint folder")->required();
  app.add_option("--draft-model,--speculative-draft-model-path", flags->draft_model,
                 "assistant folder (default: MODEL-assistant if it exists)");
  app.add_option("--goldens", flags->goldens, "safetensors file of expected values")->required();
  AddBackendFlag(app, flags->backend);
  app.add_option("--dtype", flags->dtype, "of activations and KV: auto: bfloat16 on a GPU")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16"}));
  AddKvFoldFlag(app, flags->check.kv_fold);
  app.add_option("--chunk", flags->check.chunk, "prompt tokens a step (0: all at once)")
      ->check(CLI::Range(0, 65536));
  app.add_option("--max-abs", flags->check.max_abs, "largest difference allowed in float32")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  app.add_option("--num-threads", flags->num_threads, "0: all cores")->check(CLI::Range(0, 1024));
  return [flags] { return RunVerify(*flags); };
}

}  // namespace

const Command kVerifyCommand = {
    "verify", "compare a checkpoint with expected values of the reference",
    "lapidary verify --model DIR --goldens goldens.safetensors", SetUpVerify};

}  // namespace lapidary
