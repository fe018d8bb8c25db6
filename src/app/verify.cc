// lapidary verify: a checkpoint against expected values of the reference implementation.
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include "app/command.h"
#include "app/verify.h"

#include "app/golden_check.h"
#include "app/model/find_model.h"
#include "app/model/load_model.h"
#include "io/safetensors.h"
#include "ops/cpu/cpu_ops.h"

namespace lapidary {

Goldens ReadGoldens(const Safetensors& file) {
  Goldens goldens;
  for (const auto& [name, entry] : file.tensors()) {
    Tensor tensor;
    if (entry.dtype == "F32")
      tensor.dtype = DType::kF32;
    else if (entry.dtype == "I32")
      tensor.dtype = DType::kI32;
    else
      continue;  // pixels and masks of media entries, which are skipped
    if (entry.shape.empty() || entry.shape.size() > 3) continue;
    const std::span<const std::byte> bytes = file.bytes(entry);
    if (reinterpret_cast<uintptr_t>(bytes.data()) % 4 != 0)
      throw StartupError(fmt::format("{}: tensor '{}' is misaligned", file.file().path(), name));
    tensor.data = const_cast<std::byte*>(bytes.data());
    tensor.rank = static_cast<int>(entry.shape.size());
    for (size_t i = 0; i < entry.shape.size(); ++i) tensor.shape[i] = entry.shape[i];
    tensor.row_stride = tensor.cols();
    goldens[name] = tensor;
  }
  return goldens;
}

namespace {

struct VerifyFlags {
  std::string model, draft_model, goldens;
  BackendKind backend = BackendKind::kCpu;
  int chunk = 0, num_threads = 0;
  double max_abs = 1e-3;
};

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
  const Safetensors file = OrThrow(Safetensors::Open(flags.goldens));
  GoldenCheck check(*target, drafter.get(), *ops, flags.chunk, flags.max_abs,
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
  app.add_option("--chunk", flags->chunk, "prompt tokens a step (0: all at once)")
      ->check(CLI::Range(0, 65536));
  app.add_option("--max-abs", flags->max_abs, "largest allowed difference")
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
