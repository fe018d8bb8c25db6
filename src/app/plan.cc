// lapidary plan: what a model needs and how many requests fit, from config.json alone.
#include <fmt/format.h>

#include <algorithm>

#include "app/command.h"
#include "app/model/find_model.h"
#include "app/model/load_model.h"
#include "engine/scheduler.h"
#include "kv/layout.h"
#include "model/gemma4.h"
#include "model/loader.h"

namespace lapidary {
namespace {

struct PlanFlags {
  std::string model, positional_model;
  uint64_t device_memory = 0;
};

double GiB(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

int RunPlan(const PlanFlags& flags) {
  const auto dir = FindModel(flags.model.empty() ? flags.positional_model : flags.model);
  const ModelConfig config = OrThrow(ReadModelConfig(dir));
  if (config.is_drafter)
    throw StartupError(
        fmt::format("{} is an assistant; give the model it belongs to", dir.string()));
  const uint64_t weights = WeightBytes(config);
  const KvLayout layout = KvLayout::Make(KvShapes(config), config.window, DType::kBf16);
  const KvFormula formula(layout, kDefaultDrafts);
  const uint64_t memory = flags.device_memory != 0 ? flags.device_memory : AvailableMemoryBytes();
  const uint64_t free = memory - std::min(memory, weights);
  const uint64_t slabs = free / static_cast<uint64_t>(layout.slab_bytes);
  fmt::print("memory   {:.2f} GiB\nweights  {} bytes ({:.2f} GiB){}\n", GiB(memory), weights,
             GiB(weights), weights > memory ? ": they do not fit" : "");
  fmt::print("kv bf16  {:.2f} GiB left before activations: {} slabs of {} bytes\n", GiB(free),
             slabs, layout.slab_bytes);
  fmt::print("slab     {} full pages or {} sliding pages of {} tokens\n",
             layout.full_pages_per_slab, layout.sliding_pages_per_slab, kPageTokens);
  for (const int thousands : {2, 9, 32, 128}) {
    const int tokens = thousands * 1024;
    if (tokens > config.max_position) continue;
    const auto needed = static_cast<uint64_t>(formula.SlabsFor(tokens));
    fmt::print("{:>4}k    {} slabs a request, {} requests\n", thousands, needed, slabs / needed);
  }
  return 0;
}

std::function<int()> SetUpPlan(CLI::App& app) {
  auto f = std::make_shared<PlanFlags>();
  app.add_option("MODEL", f->positional_model, "checkpoint folder (default: the shipped pebble)");
  app.add_option("--model,--model-path", f->model, "the same as a flag");
  app.add_option("--device-memory", f->device_memory,
                 "such as 80GiB (default: what this machine has available)")
      ->transform(CLI::AsSizeValue(false));
  return [f] { return RunPlan(*f); };
}

}  // namespace

const Command kPlanCommand = {"plan", "bytes and requests that fit, from config.json",
                              "lapidary plan models/31b --device-memory 80GiB", SetUpPlan};

}  // namespace lapidary
