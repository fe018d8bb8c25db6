#include "engine/step_model.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "ops/cpu/cpu_ops.h"

namespace lapidary {
namespace {

int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Gemma4StepModel::Gemma4StepModel(std::unique_ptr<Checkpoint> target,
                                 std::unique_ptr<Checkpoint> drafter,
                                 const StepModelOptions& options)
    : target_(std::move(target)),
      drafter_checkpoint_(std::move(drafter)),
      ops_(MakeCpuOps(options.num_threads)),
      arena_(options.layout, options.num_slabs),
      model_(target_->config, target_->weights, *ops_, arena_, options.limits),
      row_sampler_(ops_->MakeRowSampler(
          target_->config.vocab_size,
          std::max(options.limits.max_output_rows, options.max_draft_sequences))) {
  model_.SetLayerHook([this] { last_beat_ms_ = NowMs(); });
  if (drafter_checkpoint_ != nullptr)
    drafter_ = std::make_unique<Drafter>(target_->config, target_->weights,
                                         drafter_checkpoint_->config, drafter_checkpoint_->weights,
                                         *ops_, arena_, options.max_draft_sequences);
}

void Gemma4StepModel::PoisonWorkspaces() {
  model_.Poison();
  if (drafter_ != nullptr) drafter_->Poison();
}

}  // namespace lapidary
