#include "engine/engine.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <utility>

#include "engine/engine_loop.h"
#include "kv/arena.h"
#include "model/gemma4.h"
#include "ops/cpu/cpu_ops.h"

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

class Gemma4Runner : public StepRunner {
 public:
  Gemma4Runner(std::unique_ptr<Checkpoint> target, const Gemma4::Limits& limits,
               const KvLayout& layout, int32_t num_slabs, int num_threads)
      : target_(std::move(target)),
        ops_(MakeCpuOps(num_threads)),
        arena_(layout, num_slabs),
        model_(target_->config, target_->weights, *ops_, arena_, limits) {}
  StepOutput Forward(const Batch& batch) override { return model_.Forward(batch); }

 private:
  std::unique_ptr<Checkpoint> target_;
  std::unique_ptr<Ops> ops_;
  KvArena arena_;
  Gemma4 model_;
};

void CheckOptions(const EngineOptions& options, const ModelConfig& config) {
  const auto in_vocabulary = [&](int32_t id) { return id >= 0 && id < config.vocab_size; };
  const auto ids_ok = [&](const std::vector<int32_t>& ids) {
    return std::all_of(ids.begin(), ids.end(), in_vocabulary);
  };
  if (options.num_draft_tokens != 0)
    throw StartupError("speculative decoding is not built yet; use --speculative-num-steps 0");
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

LoopOptions PlanLoop(const EngineOptions& options, const ModelConfig& config) {
  LoopOptions loop;
  loop.vocab_size = config.vocab_size;
  loop.max_queued_requests = options.max_queued_requests;
  loop.limits = {options.max_running_requests, options.chunk_tokens};
  loop.layout = KvLayout::Make(KvShapes(config), config.window, DType::kF32);
  loop.end_ids = options.end_ids;
  if (loop.end_ids.empty()) loop.end_ids.assign(config.eos_ids.begin(), config.eos_ids.end());
  loop.suppress_ids = options.suppress_ids;

  const KvFormula formula(loop.layout, options.chunk_tokens);
  const int wanted = options.max_model_len > 0 ? options.max_model_len : config.max_position;
  const int64_t most = formula.SlabsFor(wanted) * options.max_running_requests;
  const int64_t bytes =
      options.kv_bytes > 0
          ? static_cast<int64_t>(std::min<uint64_t>(options.kv_bytes, uint64_t{1} << 60))
          : AvailableBytes() / 4;
  const int64_t slabs = std::min({bytes / loop.layout.slab_bytes, most, int64_t{1} << 24});
  loop.max_model_len = options.max_model_len > 0 ? wanted : LongestContext(formula, slabs, wanted);
  if (loop.max_model_len < 2 || formula.SlabsFor(loop.max_model_len) > slabs)
    throw StartupError(fmt::format(
        "a context of {} tokens needs {} bytes of KV cache, {} are to be had; use a shorter "
        "--max-model-len or more KV cache",
        wanted, formula.SlabsFor(wanted) * loop.layout.slab_bytes, bytes));
  loop.num_slabs = static_cast<int32_t>(slabs + 1);
  return loop;
}

}  // namespace

class Engine::Impl {
 public:
  Impl(std::unique_ptr<Checkpoint> target, const EngineOptions& options) : config_(target->config) {
    CheckOptions(options, config_);
    const LoopOptions plan = PlanLoop(options, config_);
    max_model_len_ = plan.max_model_len;
    Gemma4::Limits limits;
    limits.max_rows = Scheduler::MaxRows(plan.limits);
    limits.max_output_rows = Scheduler::MaxOutputRows(plan.limits);
    limits.fast_prefill = options.fast_prefill;
    loop_ = std::make_unique<EngineLoop>(
        std::make_unique<Gemma4Runner>(std::move(target), limits, plan.layout, plan.num_slabs,
                                       options.num_threads),
        plan);
  }

  ModelConfig config_;
  int max_model_len_ = 0;
  std::unique_ptr<EngineLoop> loop_;
};

// The drafter waits for speculation; taking it keeps the call the same then.
Engine::Engine(std::unique_ptr<Checkpoint> target, std::unique_ptr<Checkpoint> /*drafter*/,
               const EngineOptions& options)
    : impl_(std::make_unique<Impl>(std::move(target), options)) {}
Engine::~Engine() = default;

const ModelConfig& Engine::config() const { return impl_->config_; }
int Engine::max_model_len() const { return impl_->max_model_len_; }
Status Engine::Submit(Request request, TokenSink sink) {
  return impl_->loop_->Submit(std::move(request), std::move(sink));
}
void Engine::Cancel(uint64_t request_id) { impl_->loop_->Cancel(request_id); }
void Engine::CancelChoice(uint64_t request_id, int choice) {
  impl_->loop_->CancelChoice(request_id, choice);
}
EngineStats Engine::stats() const { return impl_->loop_->stats(); }

}  // namespace lapidary
