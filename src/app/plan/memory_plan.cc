#include "app/plan/memory_plan.h"

#include <fmt/core.h>
#include <CLI/App.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "kv/page_budget.h"
#include "model/gemma4.h"
#include "model/loader.h"

namespace lapidary {
namespace {

constexpr int kMinChunk = kPageTokens;
// What a sequence may be ahead by; a model that turns out to have no drafter needs less.
int MaxDrafts(const EngineOptions& options) {
  return options.num_draft_tokens < 0 ? kDefaultDrafts : options.num_draft_tokens;
}

constexpr uint64_t kGpuSpareBytes = uint64_t{1} << 30;

// Slabs for this many tokens, held by requests as long as the context and one that is shorter.
int64_t SlabsOfTokens(const KvFormula& formula, int64_t num_tokens, int context) {
  const int64_t whole = num_tokens / context;
  const auto rest = static_cast<int>(num_tokens % context);
  return whole * formula.SlabsFor(context) + (rest > 0 ? formula.SlabsFor(rest) : 0);
}

// A share of the device's memory less what else must be held from it.
uint64_t ShareLeft(double share, uint64_t device_bytes, uint64_t held_bytes, const char* flag) {
  const auto budget = static_cast<uint64_t>(share * static_cast<double>(device_bytes));
  if (budget <= held_bytes)
    throw StartupError(
        fmt::format("{} {}: {} bytes of {}, and {} are needed before the KV cache; give a larger "
                    "share or more memory",
                    flag, share, budget, device_bytes, held_bytes));
  return budget - held_bytes;
}

// The tokens of a step that prompts and decode rows share: the smallest bound given, or the
// default.
int ChunkTokens(const MemoryFlags& flags, int otherwise) {
  int chunk = 0;
  for (const int given : {flags.chunk_tokens, flags.max_batched_tokens, flags.max_prefill_tokens})
    if (given > 0 && (chunk == 0 || given < chunk)) chunk = given;
  return chunk == 0 ? otherwise : chunk;
}

// The smallest of the bounds that were given.
class KvBound {
 public:
  explicit KvBound(MemoryPlan& plan) : plan_(plan) {}
  void AtMost(uint64_t bytes, const char* flag) {
    if (given_ && bytes >= plan_.kv_bytes) return;
    given_ = true;
    plan_.kv_bytes = bytes;
    plan_.kv_reason = flag;
  }
  bool given() const { return given_; }

 private:
  MemoryPlan& plan_;
  bool given_ = false;
};

void BoundKv(const MemoryFlags& flags, const MemoryBudget& device, const KvFormula& formula,
             int context, MemoryPlan& plan) {
  const auto slab_bytes = static_cast<uint64_t>(plan.layout.slab_bytes);
  const uint64_t held = plan.weight_bytes + plan.workspace_bytes;
  KvBound bound(plan);
  const auto of_tokens = [&](int64_t tokens, const char* flag) {
    if (tokens > 0)
      bound.AtMost(static_cast<uint64_t>(SlabsOfTokens(formula, tokens, context)) * slab_bytes,
                   flag);
  };
  if (flags.kv_bytes > 0) bound.AtMost(flags.kv_bytes, "--kv-cache-memory-bytes");
  of_tokens(flags.max_total_tokens, "--max-total-tokens");
  of_tokens(int64_t{flags.num_pages} * kPageTokens, "--num-gpu-blocks-override");
  if (constexpr const char* kFlag = "--gpu-memory-utilization"; flags.utilization > 0)
    bound.AtMost(ShareLeft(flags.utilization, device.bytes, held, kFlag), kFlag);
  if (constexpr const char* kFlag = "--mem-fraction-static"; flags.static_fraction > 0)
    bound.AtMost(ShareLeft(flags.static_fraction, device.bytes, plan.weight_bytes, kFlag), kFlag);
  if (bound.given()) return;
  // A GPU is ours but for 1 GiB; a CPU's memory is shared, and mapped weights live in its cache.
  if (device.is_cpu)
    bound.AtMost(device.bytes / 4, "a quarter of the available memory  [--kv-cache-memory-bytes]");
  else
    bound.AtMost(device.bytes - std::min(device.bytes, held + kGpuSpareBytes),
                 "all but 1 GiB  [--gpu-memory-utilization]");
}

// The slabs' share that holds `ratio` sliding tokens for each full one.
double SlidingShare(double ratio, const KvLayout& layout) {
  if (ratio == 0 || layout.sliding_pages_per_slab == 0 || layout.full_pages_per_slab == 0) return 0;
  const double sliding = ratio / layout.sliding_pages_per_slab;
  return sliding / (1.0 / layout.full_pages_per_slab + sliding);
}

int LongestContext(const MemoryPlan& plan, const KvFormula& formula, int limit) {
  int low = 0;
  while (low < limit) {
    const int middle = low + (limit - low + 1) / 2;
    if (formula.SlabsFor(middle) <= plan.num_slabs)
      low = middle;
    else
      limit = middle - 1;
  }
  return low;
}

}  // namespace

Result<int> ParseTokenCount(const std::string& text) {
  if (text == "auto" || text == "-1") return 0;
  const Error bad{fmt::format("'{}' is no number of tokens, such as 4096, 32k or 1.5k", text), "",
                  ""};
  double number = 0;
  const char* const last = text.data() + text.size();
  const auto [end, code] = std::from_chars(text.data(), last, number, std::chars_format::fixed);
  if (code != std::errc() || !(number >= 0)) return bad;
  const std::string_view unit(end, static_cast<size_t>(last - end));
  double scale = 0;
  if (unit.empty()) scale = 1;
  if (unit == "k") scale = 1000;
  if (unit == "K" || unit == "Ki") scale = 1024;
  if (unit == "m") scale = 1e6;
  if (unit == "M" || unit == "Mi") scale = 1024 * 1024;
  const double tokens = number * scale;
  if (scale == 0 || tokens != std::floor(tokens) || tokens > 2147483647.0) return bad;
  return static_cast<int>(tokens);
}

void AddTokenCount(CLI::App& app, const std::string& names, int& value, const std::string& text) {
  app.add_option_function<std::string>(
         names,
         [&value, names](const std::string& given) {
           const Result<int> parsed = ParseTokenCount(given);
           if (!parsed.ok()) throw CLI::ValidationError(names, parsed.error().message);
           value = parsed.value();
         },
         text)
      ->type_name("TOKENS");
}

void AddMemoryFlags(CLI::App& app, MemoryFlags& flags, EngineOptions& options) {
  AddTokenCount(app, "--max-model-len,--context-length", options.max_model_len,
                "such as 4096, 32k (auto: the model's, or what fits)");
  app.add_option("--max-num-seqs,--max-running-requests", options.max_running_requests,
                 "sequences in a step")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--chunked-prefill-size", flags.chunk_tokens,
                 "tokens a step (256; on a GPU 4096 or 8192)")
      ->check(CLI::Range(kMinChunk, 65536));
  app.add_option("--max-num-batched-tokens", flags.max_batched_tokens, "the same")
      ->check(CLI::Range(kMinChunk, 65536));
  app.add_option("--max-prefill-tokens", flags.max_prefill_tokens, "the same")
      ->check(CLI::Range(kMinChunk, 65536));
  app.add_option("--reserve-output-tokens", options.reserved_output_tokens,
                 "of each request; beyond them it may be retracted")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  app.add_flag("--enable-prefix-caching,!--no-enable-prefix-caching,!--disable-radix-cache",
               options.prefix_cache, "keep the KV of prompts (on)");
  app.add_option("--gpu-memory-utilization", flags.utilization,
                 "share of the memory for all of this engine")
      ->check(CLI::Range(0.001, 1.0));
  app.add_option("--mem-fraction-static", flags.static_fraction,
                 "share of the memory for weights and KV")
      ->check(CLI::Range(0.001, 1.0));
  app.add_option("--kv-cache-memory-bytes", flags.kv_bytes, "KV cache, such as 4GiB")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--swa-full-tokens-ratio", flags.swa_ratio,
                 "sliding tokens a full one: slabs that idle full pages leave free (none)")
      ->check(CLI::Range(0.001, 1.0));
  AddTokenCount(app, "--max-total-tokens", flags.max_total_tokens, "KV cache in tokens");
  app.add_option("--num-gpu-blocks-override", flags.num_pages, "KV cache in pages of 64 tokens")
      ->check(CLI::Range(1, 1 << 24));
  AddKvFoldFlag(app, options.kv_fold);
}

void AddKvFoldFlag(CLI::App& app, KvFold& fold) {
  app.add_option_function<std::string>(
         "--kv-fold",
         [&fold](const std::string& given) {
           fold = given == "on" ? KvFold::kOn : given == "off" ? KvFold::kOff : KvFold::kAuto;
         },
         "K and V of full layers in one: on, off, auto (a GPU)")
      ->check(CLI::IsMember({"auto", "on", "off"}));
  app.add_flag_callback(
      "--no-kv-fold", [&fold] { fold = KvFold::kOff; }, "the same as --kv-fold off");
}

MemoryBudget MemoryBudget::Of(const Ops* gpu) {
  return gpu == nullptr ? MemoryBudget{static_cast<uint64_t>(HostDevice().free_bytes()), true}
                        : MemoryBudget{static_cast<uint64_t>(gpu->device().total_bytes()), false};
}

int64_t MemoryPlan::Requests(int num_tokens) const {
  return num_slabs / KvFormula(layout, MaxDrafts(options)).SlabsFor(num_tokens);
}

std::vector<int> MemoryPlan::Lengths() const {
  std::vector<int> lengths;
  for (const int thousands : {2, 9, 32, 128})
    if (thousands * 1024 <= max_position) lengths.push_back(thousands * 1024);
  return lengths;
}

MemoryPlan PlanMemory(const ModelConfig& config, const MemoryFlags& flags, EngineOptions options,
                      const MemoryBudget& device) {
  if (options.max_model_len > config.max_position)
    throw StartupError(fmt::format("--max-model-len {} is more than the model's {}",
                                   options.max_model_len, config.max_position));
  options.chunk_tokens = ChunkTokens(flags, DefaultChunkTokens(config, device.is_cpu));
  MemoryPlan plan;
  plan.is_cpu = device.is_cpu;
  plan.device_bytes = device.bytes;
  plan.max_position = config.max_position;
  plan.weight_bytes = WeightBytes(config);
  SchedulerLimits step;
  step.max_running = options.max_running_requests;
  step.chunk_tokens = options.chunk_tokens;
  step.reserved_output = options.reserved_output_tokens;
  step.max_drafts = MaxDrafts(options);
  Gemma4::Limits limits;
  limits.max_rows = Scheduler::MaxRows(step);
  limits.max_output_rows = Scheduler::MaxOutputRows(step);
  limits.activations = device.dtype();
  plan.fold = ChooseKvFold(config, options.kv_fold, !device.is_cpu);
  plan.layout = KvLayout::Make(KvShapes(config, plan.fold.folds), config.window, device.dtype());
  limits.max_scratch_pages = Scheduler::MaxScratchPages(plan.layout, step);
  plan.workspace_bytes = static_cast<uint64_t>(Gemma4::WorkspaceBytes(config, limits));
  const KvFormula formula(plan.layout, step.max_drafts);
  const int wanted = options.max_model_len > 0 ? options.max_model_len : config.max_position;

  BoundKv(flags, device, formula, wanted, plan);
  const int64_t most = formula.SlabsFor(wanted) * options.max_running_requests;
  plan.num_slabs = std::min(
      static_cast<int64_t>(plan.kv_bytes / static_cast<uint64_t>(plan.layout.slab_bytes)), most);
  plan.context = LongestContext(plan, formula, wanted);
  options.sliding_share = SlidingShare(flags.swa_ratio, plan.layout);
  options.kv_bytes = std::max(plan.kv_bytes, uint64_t{1});
  plan.options = std::move(options);
  return plan;
}

std::string MemoryPlan::CacheLine() const {
  return fmt::format("{}: {}  [--kv-fold]", fold.folds ? "folded" : "split", fold.reason);
}

std::string GiB(uint64_t bytes) {
  return fmt::format("{:.2f}", static_cast<double>(bytes) / (uint64_t{1} << 30));
}

}  // namespace lapidary
