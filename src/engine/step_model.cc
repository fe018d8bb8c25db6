#include "engine/step_model.h"

#include <atomic>
#include <chrono>
#include <utility>

#include "kv/arena.h"
#include "ops/cpu/cpu_ops.h"

namespace lapidary {
namespace {

class Gemma4StepModel : public StepModel {
 public:
  Gemma4StepModel(std::unique_ptr<Checkpoint> target, std::unique_ptr<Checkpoint> drafter,
                  const StepModelOptions& options)
      : target_(std::move(target)),
        drafter_checkpoint_(std::move(drafter)),
        ops_(MakeCpuOps(options.num_threads)),
        arena_(options.layout, options.num_slabs),
        model_(target_->config, target_->weights, *ops_, arena_, options.limits) {
    model_.SetLayerHook([this] { last_beat_ms_ = NowMs(); });
    if (drafter_checkpoint_ != nullptr)
      drafter_ = std::make_unique<Drafter>(
          target_->config, target_->weights, drafter_checkpoint_->config,
          drafter_checkpoint_->weights, *ops_, arena_, options.max_draft_sequences);
  }
  int vocab_size() const override { return target_->config.vocab_size; }
  int hidden() const override { return target_->config.hidden; }
  int window() const override { return target_->config.window; }
  bool has_drafter() const override { return drafter_ != nullptr; }
  StepOutput Forward(const Batch& batch) override { return model_.Forward(batch); }
  DraftOutput Draft(Tensor tokens, Tensor hidden, const RowSet& rows) override {
    return drafter_->Step(tokens, hidden, rows);
  }
  int64_t last_beat_ms() const override { return last_beat_ms_; }

 private:
  static int64_t NowMs() {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }

  std::atomic<int64_t> last_beat_ms_{0};
  std::unique_ptr<Checkpoint> target_, drafter_checkpoint_;
  std::unique_ptr<Ops> ops_;
  KvArena arena_;
  Gemma4 model_;
  std::unique_ptr<Drafter> drafter_;
};

}  // namespace

std::unique_ptr<StepModel> MakeGemma4StepModel(std::unique_ptr<Checkpoint> target,
                                               std::unique_ptr<Checkpoint> drafter,
                                               const StepModelOptions& options) {
  return std::make_unique<Gemma4StepModel>(std::move(target), std::move(drafter), options);
}

}  // namespace lapidary
