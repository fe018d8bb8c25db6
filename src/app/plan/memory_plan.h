// MemoryPlan: what a model needs and what the memory flags leave for its KV cache. `plan` prints
// it, `serve` prints it and hands its numbers to the engine.
#ifndef LAPIDARY_APP_PLAN_MEMORY_PLAN_H_
#define LAPIDARY_APP_PLAN_MEMORY_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/scheduler/scheduler.h"
#include "kv/layout.h"
#include "model/config.h"

namespace CLI {
class App;
}

namespace lapidary {

// Bounds on memory and on a step as vLLM and SGLang spell them; 0: not given. Of several bounds the
// smallest counts.
struct MemoryFlags {
  double utilization = 0;      // vLLM: of the device's memory, for all that this engine holds
  double static_fraction = 0;  // SGLang: of the device's memory, for weights and KV
  uint64_t kv_bytes = 0;
  int max_total_tokens = 0;  // of KV, at the context's mix of full and sliding pages
  int num_pages = 0;         // likewise, in pages of 64 tokens
  double swa_ratio = 0;      // SGLang: sliding tokens a full one; a share of slabs kept for them
  int chunk_tokens = 0, max_batched_tokens = 0, max_prefill_tokens = 0;  // of a step
};
// These and those of `options`: context, running requests, queue, chunk.
void AddMemoryFlags(CLI::App& app, MemoryFlags& flags, EngineOptions& options);

// "auto", "4096", "32k", "1.5k" (thousands), "32K" (1024s), "1M"; 0 for auto.
Result<int> ParseTokenCount(const std::string& text);

// An option that takes such a count.
void AddTokenCount(CLI::App& app, const std::string& names, int& value, const std::string& text);

// --kv-fold and --no-kv-fold.
void AddKvFoldFlag(CLI::App& app, KvFold& fold);

struct MemoryPlan {
  bool is_cpu = true;
  uint64_t device_bytes = 0, weight_bytes = 0, workspace_bytes = 0;
  uint64_t kv_bytes = 0;  // the bound
  std::string kv_reason;  // where the bound comes from, with its flag
  KvLayout layout;
  KvFoldChoice fold;
  int64_t num_slabs = 0;  // usable ones: within the bound and what running requests can fill
  int context = 0;        // 0: not one request fits
  EngineOptions options;  // with the bound and the chunk
  // How many requests of this length the slabs hold at a time.
  int64_t Requests(int num_tokens) const;
  // How full layers keep K and V, and why.
  std::string CacheLine() const;
  // The lengths that plans are compared by, as far as the model's context goes.
  std::vector<int> Lengths() const;
  int max_position = 0;
};

// What the device has for us: all of a GPU's memory, or the available memory of a CPU's machine.
struct MemoryBudget {
  uint64_t bytes = 0;
  bool is_cpu = true;
  DType dtype() const { return is_cpu ? DType::kF32 : DType::kBf16; }
  static MemoryBudget Of(const Ops* gpu);  // null: the CPU's
};

// Throws StartupError when the flags leave nothing for KV.
MemoryPlan PlanMemory(const ModelConfig& config, const MemoryFlags& flags, EngineOptions options,
                      const MemoryBudget& device);

std::string GiB(uint64_t bytes);  // "12.34"

}  // namespace lapidary

#endif  // LAPIDARY_APP_PLAN_MEMORY_PLAN_H_
