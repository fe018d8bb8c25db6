// lapidary plan: what a model needs and how many requests fit, from config.json alone.
#include <fmt/core.h>
#include <CLI/App.hpp>

#include <iostream>
#include <memory>

#include "app/command.h"
#include "app/model/load_model.h"
#include "app/plan/memory_plan.h"
#include "app/plan/plan_model.h"
#include "io/json.h"

namespace lapidary {
namespace {

struct PlanFlags {
  ModelFlags model;
  std::string positional_model;
  MemoryFlags memory;
  EngineOptions engine;
  uint64_t device_bytes = 0;
  bool json_output = false;
};

void PrintLines(const MemoryPlan& plan, bool is_cpu) {
  const KvLayout& layout = plan.layout;
  fmt::print("memory   {} GiB, {}\n", GiB(plan.device_bytes),
             is_cpu ? "available to the CPU" : "of a GPU");
  fmt::print("weights  {} bytes ({} GiB){}\n", plan.weight_bytes, GiB(plan.weight_bytes),
             plan.weight_bytes > plan.device_bytes ? ": they do not fit" : "");
  fmt::print("work     {} bytes ({} GiB), chunk {}, {} running requests\n", plan.workspace_bytes,
             GiB(plan.workspace_bytes), plan.options.chunk_tokens,
             plan.options.max_running_requests);
  fmt::print("kv {}   {} slabs of {} bytes ({} GiB): {}\n", is_cpu ? "f32 " : "bf16",
             plan.num_slabs, layout.slab_bytes,
             GiB(static_cast<uint64_t>(plan.num_slabs) * static_cast<uint64_t>(layout.slab_bytes)),
             plan.kv_reason);
  fmt::print("K and V  {}\n", plan.CacheLine());
  fmt::print(
      "slab     {} full pages or {} sliding pages of {} tokens ({} and {} bytes), {} unused\n",
      layout.full_pages_per_slab, layout.sliding_pages_per_slab, kPageTokens,
      layout.full_page_bytes, layout.sliding_page_bytes, layout.unused_slab_bytes);
  fmt::print("context  {}\n", plan.context);
  for (const int tokens : plan.Lengths())
    fmt::print("{:>4}k    {} requests\n", tokens / 1024, plan.Requests(tokens));
}

void PrintJson(const MemoryPlan& plan, bool is_cpu) {
  json::object requests;
  for (const int tokens : plan.Lengths()) requests[std::to_string(tokens)] = plan.Requests(tokens);
  const KvLayout& layout = plan.layout;
  const json::object out = {{"device_bytes", plan.device_bytes},
                            {"weight_bytes", plan.weight_bytes},
                            {"workspace_bytes", plan.workspace_bytes},
                            {"kv_dtype", is_cpu ? "f32" : "bf16"},
                            {"kv_folded", plan.fold.folds},
                            {"kv_fold_reason", plan.fold.reason},
                            {"kv_bytes", plan.num_slabs * layout.slab_bytes},
                            {"kv_bound", plan.kv_reason},
                            {"num_slabs", plan.num_slabs},
                            {"slab_bytes", layout.slab_bytes},
                            {"full_page_bytes", layout.full_page_bytes},
                            {"sliding_page_bytes", layout.sliding_page_bytes},
                            {"full_pages_per_slab", layout.full_pages_per_slab},
                            {"sliding_pages_per_slab", layout.sliding_pages_per_slab},
                            {"unused_slab_bytes", layout.unused_slab_bytes},
                            {"page_tokens", kPageTokens},
                            {"context", plan.context},
                            {"chunk_tokens", plan.options.chunk_tokens},
                            {"max_running_requests", plan.options.max_running_requests},
                            {"requests", requests}};
  std::cout << json::serialize(out) << "\n";
}

int RunPlan(const PlanFlags& flags) {
  const bool is_cpu = flags.device_bytes == 0;
  const MemoryBudget device =
      is_cpu ? MemoryBudget::Of(nullptr) : MemoryBudget{flags.device_bytes, false};
  const MemoryPlan plan = PlanModel(flags.model, flags.memory, flags.engine, device).memory;
  if (flags.json_output)
    PrintJson(plan, is_cpu);
  else
    PrintLines(plan, is_cpu);
  return 0;
}

std::function<int()> SetUpPlan(CLI::App& app) {
  auto f = std::make_shared<PlanFlags>();
  app.add_option("MODEL", f->positional_model, "as --model");
  AddModelFlags(app, f->model);
  AddMemoryFlags(app, f->memory, f->engine);
  app.add_option("--device-memory", f->device_bytes,
                 "of a GPU, such as 80GiB (default: this machine's)")
      ->transform(CLI::AsSizeValue(false));
  app.add_flag("--json", f->json_output, "print one JSON object and nothing else");
  return [f] {
    if (f->model.model.empty()) f->model.model = f->positional_model;
    return RunPlan(*f);
  };
}

}  // namespace

const Command kPlanCommand = {"plan", "bytes and requests that fit, from config.json",
                              "lapidary plan models/31b --device-memory 80GiB", SetUpPlan};

}  // namespace lapidary
