#include "engine/engine.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <utility>

#include "engine/engine_loop.h"
#include "engine/rank.h"

namespace lapidary {
namespace {

int64_t AvailableBytes() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  int64_t kib = 0;
  while (file >> name >> kib && std::getline(file, unit))
    if (name == "MemAvailable:") return kib * 1024;
  return int64_t{1} << 30;
}

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

LoopOptions PlanLoop(const EngineOptions& options, const ModelConfig& config, bool has_drafter) {
  LoopOptions loop;
  loop.vocab_size = config.vocab_size;
  loop.max_queued_requests = options.max_queued_requests;
  loop.limits.max_running = options.max_running_requests;
  loop.limits.chunk_tokens = options.chunk_tokens;
  loop.limits.reserved_output = options.reserved_output_tokens;
  loop.limits.overcommit = options.overcommit;
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
  loop.layout = KvLayout::Make(KvShapes(config), config.window, DType::kF32);
  loop.end_ids = options.end_ids;
  if (loop.end_ids.empty()) loop.end_ids.assign(config.eos_ids.begin(), config.eos_ids.end());

  const KvFormula formula(loop.layout, loop.limits.max_drafts);
  const int wanted = options.max_model_len > 0 ? options.max_model_len : config.max_position;
  const int64_t most = formula.SlabsFor(wanted) * options.max_running_requests;
  const int64_t bytes =
      options.kv_bytes > 0
          ? static_cast<int64_t>(std::min<uint64_t>(options.kv_bytes, uint64_t{1} << 60))
          : AvailableBytes() / 4;
  const int64_t slabs = std::min({bytes / loop.layout.slab_bytes, most, int64_t{1} << 24});
  loop.limits.max_length =
      options.max_model_len > 0 ? wanted : LongestContext(formula, slabs, wanted);
  if (loop.limits.max_length < 2 || formula.SlabsFor(loop.limits.max_length) > slabs)
    throw StartupError(fmt::format(
        "a context of {} tokens needs {} bytes of KV cache, {} are to be had; use a shorter "
        "--max-model-len or more KV cache",
        wanted, formula.SlabsFor(wanted) * loop.layout.slab_bytes, bytes));
  loop.num_slabs = static_cast<int32_t>(slabs + 1);
  return loop;
}

StepModelOptions PlanModel(const EngineOptions& options, const LoopOptions& loop) {
  StepModelOptions model;
  model.layout = loop.layout;
  model.num_slabs = loop.num_slabs;
  model.max_draft_sequences = loop.limits.max_running;
  model.limits.max_rows = Scheduler::MaxRows(loop.limits);
  model.limits.max_output_rows = Scheduler::MaxOutputRows(loop.limits);
  model.limits.max_scratch_pages = Scheduler::MaxScratchPages(loop.layout, loop.limits);
  model.limits.fast_prefill = options.fast_prefill;
  model.limits.checks_tables = options.debug_kv_bounds;
  model.num_threads = options.num_threads;
  return model;
}

}  // namespace

class Engine::Impl {
 public:
  Impl(std::unique_ptr<Checkpoint> target, std::unique_ptr<Checkpoint> drafter,
       const EngineOptions& options)
      : config_(target->config) {
    CheckOptions(options, config_);
    if (drafter != nullptr)
      if (const Status fits = CheckDrafterFits(config_, drafter->config); !fits.ok())
        throw StartupError(fits.error().message);
    const LoopOptions plan = PlanLoop(options, config_, drafter != nullptr);
    if (plan.limits.max_drafts == 0) drafter.reset();
    max_model_len_ = plan.limits.max_length;
    const RankOptions rank{plan.limits.max_running, Scheduler::TableCells(plan.limits),
                           options.suppress_ids};
    loop_ = std::make_unique<EngineLoop>(
        std::make_unique<Rank>(std::make_unique<Gemma4StepModel>(
                                   std::move(target), std::move(drafter), PlanModel(options, plan)),
                               rank),
        plan);
  }

  ModelConfig config_;
  int max_model_len_ = 0;
  std::unique_ptr<EngineLoop> loop_;
};

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
