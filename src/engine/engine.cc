#include "engine/engine.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/engine_loop.h"
#include "engine/rank.h"

namespace lapidary {
namespace {

void CheckOptions(const EngineOptions& options, const ModelConfig& config) {
  const auto in_vocabulary = [&](int32_t id) { return id >= 0 && id < config.vocab_size; };
  const auto ids_ok = [&](const std::vector<int32_t>& ids) {
    return std::all_of(ids.begin(), ids.end(), in_vocabulary);
  };
  if (options.num_draft_tokens < -1 || options.num_draft_tokens > kMaxDrafts)
    throw StartupError(fmt::format("--speculative-num-steps must be 0 to {}", kMaxDrafts));
  if (!(options.sliding_share >= 0 && options.sliding_share < 1))
    throw StartupError("the share of sliding pages must be in [0, 1)");
  if (options.reserved_output_tokens < 1)
    throw StartupError("--reserve-output-tokens must be positive");
  if (options.max_running_requests < 1 || options.max_running_requests > 4096)
    throw StartupError("--max-running-requests must be 1 to 4096");
  if (options.max_queued_requests < 1) throw StartupError("--max-queued-requests must be positive");
  if (options.chunk_tokens < kPageTokens || options.chunk_tokens > 1 << 16)
    throw StartupError("--chunked-prefill-size must be 64 to 65536");
  if (options.max_model_len < 0 || options.max_model_len == 1 ||
      options.max_model_len > config.max_position)
    throw StartupError(fmt::format("--max-model-len {} must be 2 to the model's {}",
                                   options.max_model_len, config.max_position));
  if (!ids_ok(options.end_ids) || !ids_ok(options.suppress_ids))
    throw StartupError("an end or suppressed id is outside the model's vocabulary");
}

// The longest context that this many slabs hold.
int LongestContext(const KvFormula& formula, int64_t num_slabs, int limit) {
  int low = 0;
  while (low < limit) {
    const int middle = low + (limit - low + 1) / 2;
    if (formula.SlabsFor(middle) <= num_slabs) {
      low = middle;
    } else {
      limit = middle - 1;
    }
  }
  return low;
}

// Each of them is looked up in the prefix cache when somebody may start.
constexpr int kOrderedByPrefix = 64;

// All but the KV cache; the context is the one that was asked for.
LoopOptions PlanLoop(const EngineOptions& options, const ModelConfig& config, bool has_drafter,
                     bool on_gpu) {
  const DType dtype = on_gpu ? DType::kBf16 : DType::kF32;
  LoopOptions loop;
  loop.vocab_size = config.vocab_size;
  loop.max_queued_requests = options.max_queued_requests;
  loop.limits.max_running = options.max_running_requests;
  loop.limits.chunk_tokens = options.chunk_tokens;
  loop.limits.reserved_output = options.reserved_output_tokens;
  loop.limits.overcommit = options.overcommit;
  if (options.longest_prefix_first) loop.limits.longest_prefix_among = kOrderedByPrefix;
  loop.limits.sliding_share = options.sliding_share;
  loop.prefix_cache = options.prefix_cache;
  loop.overlap = options.overlap;
  loop.log_interval = options.log_interval;
  // A request may ask for more drafts than the engine makes by itself.
  if (has_drafter && options.num_draft_tokens != 0)
    loop.limits.max_drafts = loop.drafts.max_drafts =
        options.num_draft_tokens > 0 ? options.num_draft_tokens : kDefaultDrafts;
  loop.drafts.adaptive = options.num_draft_tokens < 0;
  loop.drafts.position = options.draft_position;
  const bool folds = ChooseKvFold(config, options.kv_fold, on_gpu).folds;
  loop.layout = KvLayout::Make(KvShapes(config, folds), config.window, dtype);
  loop.end_ids = options.end_ids;
  if (loop.end_ids.empty()) loop.end_ids.assign(config.eos_ids.begin(), config.eos_ids.end());
  loop.limits.max_length = options.max_model_len > 0 ? options.max_model_len : config.max_position;
  return loop;
}

// The slabs that `bytes` hold, as far as running requests can fill them, and the context.
void PlanKv(const EngineOptions& options, int64_t bytes, LoopOptions& loop) {
  const KvFormula formula(loop.layout, loop.limits.max_drafts);
  const int wanted = loop.limits.max_length;
  const int64_t most = formula.SlabsFor(wanted) * options.max_running_requests;
  const int64_t slabs = std::min({bytes / loop.layout.slab_bytes, most, int64_t{1} << 24});
  if (options.max_model_len == 0) loop.limits.max_length = LongestContext(formula, slabs, wanted);
  if (loop.limits.max_length < 2 || formula.SlabsFor(loop.limits.max_length) > slabs)
    throw StartupError(fmt::format(
        "a context of {} tokens needs {} bytes of KV cache, {} are to be had; use a shorter "
        "--max-model-len or more KV cache",
        wanted, formula.SlabsFor(wanted) * loop.layout.slab_bytes, bytes));
  loop.num_slabs = static_cast<int32_t>(slabs + 1);
}

StepModelOptions PlanModel(const EngineOptions& options, const LoopOptions& loop) {
  StepModelOptions model;
  model.layout = loop.layout;
  model.max_running = loop.limits.max_running;
  model.max_drafts = loop.limits.max_drafts;
  model.table_cells = Scheduler::TableCells(loop.limits);
  model.limits.max_rows = Scheduler::MaxRows(loop.limits);
  model.limits.max_output_rows = Scheduler::MaxOutputRows(loop.limits);
  model.limits.max_scratch_pages = Scheduler::MaxScratchPages(loop.layout, loop.limits);
  model.limits.activations = loop.layout.dtype;
  model.limits.fast_prefill = options.fast_prefill;
  model.limits.checks_tables = options.debug_kv_bounds;
  model.num_threads = options.num_threads;
  model.batch_invariant = options.batch_invariant;
  return model;
}

// A GPU verifies all drafts of all sequences, up to the rows that decode attention takes.
int MaxDraftRows(const SchedulerLimits& limits) {
  constexpr int kMaxDecodeRows = 1024;
  if (limits.max_running > kMaxDecodeRows)
    throw StartupError(fmt::format("--max-num-seqs {}: a GPU decodes up to {} sequences a step",
                                   limits.max_running, kMaxDecodeRows));
  return std::min(limits.max_running * limits.max_drafts, kMaxDecodeRows - limits.max_running);
}

uint64_t BytesOr(uint64_t asked, int64_t otherwise) {
  return asked > 0 ? std::min<uint64_t>(asked, uint64_t{1} << 60)
                   : static_cast<uint64_t>(std::max<int64_t>(otherwise, 0));
}

// On a CPU memory is planned first. On a GPU a model with the smallest cache runs once: what it
// leaves is there for the cache.
std::unique_ptr<Gemma4StepModel> StartModel(std::unique_ptr<Checkpoint> target,
                                            std::unique_ptr<Checkpoint> drafter,
                                            const EngineOptions& options, LoopOptions& loop) {
  const bool on_gpu = target->ops != nullptr && !target->ops->device().is_host();
  if (!on_gpu)
    PlanKv(options, static_cast<int64_t>(BytesOr(options.kv_bytes, HostDevice().free_bytes() / 4)),
           loop);
  StepModelOptions plan = PlanModel(options, loop);
  plan.num_slabs = loop.num_slabs;
  if (!on_gpu)
    return std::make_unique<Gemma4StepModel>(std::move(target), std::move(drafter), plan);
  plan.num_slabs = Gemma4StepModel::kWarmUpSlabs;
  auto model = std::make_unique<Gemma4StepModel>(std::move(target), std::move(drafter), plan);
  const int64_t left = model->WarmUp();
  PlanKv(options, static_cast<int64_t>(std::min(BytesOr(options.kv_bytes, left), BytesOr(0, left))),
         loop);
  plan.num_slabs = loop.num_slabs;
  plan.table_cells = Scheduler::TableCells(loop.limits);
  model->Restart(plan);
  return model;
}

}  // namespace

class Engine::Impl {
 public:
  Impl(std::unique_ptr<Checkpoint> target, std::unique_ptr<Checkpoint> drafter,
       EngineOptions options)
      : config_(target->config) {
    const bool is_cpu = target->ops == nullptr || target->ops->device().is_host();
    if (options.chunk_tokens == 0) options.chunk_tokens = DefaultChunkTokens(config_, is_cpu);
    CheckOptions(options, config_);
    if (drafter != nullptr)
      if (const Status fits = CheckDrafterFits(config_, drafter->config); !fits.ok())
        throw StartupError(fits.error().message);
    LoopOptions plan = PlanLoop(options, config_, drafter != nullptr, !is_cpu);
    if (plan.limits.max_drafts == 0) drafter.reset();
    if (!is_cpu) plan.limits.max_draft_rows = MaxDraftRows(plan.limits);
    auto model = StartModel(std::move(target), std::move(drafter), options, plan);
    max_model_len_ = plan.limits.max_length;
    const RankOptions rank{plan.limits.max_running, Scheduler::TableCells(plan.limits),
                           options.suppress_ids, options.simulated_accept_length};
    loop_ = std::make_unique<EngineLoop>(std::make_unique<Rank>(std::move(model), rank), plan);
  }

  ModelConfig config_;
  int max_model_len_ = 0;
  std::unique_ptr<EngineLoop> loop_;
};

int DefaultChunkTokens(const ModelConfig& config, bool is_cpu) {
  constexpr int kCpu = 256, kGpu = 8192, kLargeModel = 4096;
  constexpr uint64_t kLargeBytes = uint64_t{55} << 30;  // dense: every weight is used by every row
  if (is_cpu) return kCpu;
  return config.moe.num_experts == 0 && WeightBytes(config) > kLargeBytes ? kLargeModel : kGpu;
}

Engine::Engine(std::unique_ptr<Checkpoint> target, std::unique_ptr<Checkpoint> drafter,
               const EngineOptions& options)
    : impl_(std::make_unique<Impl>(std::move(target), std::move(drafter), options)) {}
Engine::~Engine() = default;

const ModelConfig& Engine::config() const { return impl_->config_; }
int Engine::max_model_len() const { return impl_->max_model_len_; }
int64_t Engine::FlushCache() { return impl_->loop_->FlushCache(); }
Status Engine::Submit(Request request, TokenSink sink) {
  return impl_->loop_->Submit(std::move(request), std::move(sink));
}
void Engine::Cancel(uint64_t request_id) { impl_->loop_->Cancel(request_id); }
void Engine::CancelChoice(uint64_t request_id, int choice) {
  impl_->loop_->CancelChoice(request_id, choice);
}
EngineStats Engine::stats() const { return impl_->loop_->stats(); }

}  // namespace lapidary
