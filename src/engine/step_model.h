// StepModel: a model and, if there is one, its drafter on one device, as a rank drives them.
#ifndef LAPIDARY_ENGINE_STEP_MODEL_H_
#define LAPIDARY_ENGINE_STEP_MODEL_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "kv/arena.h"
#include "model/drafter.h"
#include "model/gemma4.h"
#include "model/loader.h"
#include "ops/batch.h"
#include "ops/row_sampler.h"

namespace lapidary {

// Called on the rank's thread only; outputs are valid until the next call.
class StepModel {
 public:
  virtual ~StepModel() = default;
  virtual int vocab_size() const = 0;
  virtual int hidden() const = 0;  // D: floats of a state that goes to the drafter
  virtual int window() const = 0;
  virtual bool has_drafter() const = 0;
  virtual StepOutput Forward(const Batch& batch) = 0;
  // As Drafter::Step.
  virtual DraftOutput Draft(Tensor tokens, Tensor hidden, const RowSet& rows) = 0;
  // For the logits of both.
  virtual RowSampler& row_sampler() = 0;
  // When it last finished a layer, on the steady clock, 0: unknown; thread-safe.
  virtual int64_t last_beat_ms() const { return 0; }
};

struct StepModelOptions {
  KvLayout layout;
  int32_t num_slabs = 0;  // slab 0 included
  int max_draft_sequences = 0;
  Gemma4::Limits limits;
  int num_threads = 0;  // 0: all cores
};

// The real one, on the CPU. drafter may be null. Allocates everything.
class Gemma4StepModel : public StepModel {
 public:
  Gemma4StepModel(std::unique_ptr<Checkpoint> target, std::unique_ptr<Checkpoint> drafter,
                  const StepModelOptions& options);

  int vocab_size() const override { return target_->config.vocab_size; }
  int hidden() const override { return target_->config.hidden; }
  int window() const override { return target_->config.window; }
  bool has_drafter() const override { return drafter_ != nullptr; }
  StepOutput Forward(const Batch& batch) override { return model_.Forward(batch); }
  DraftOutput Draft(Tensor tokens, Tensor hidden, const RowSet& rows) override {
    return drafter_->Step(tokens, hidden, rows);
  }
  RowSampler& row_sampler() override { return *row_sampler_; }
  int64_t last_beat_ms() const override { return last_beat_ms_; }

  KvArena& arena() { return arena_; }
  // Between two steps; KvArena::Poison for everything a step works in.
  void PoisonWorkspaces();

 private:
  std::atomic<int64_t> last_beat_ms_{0};
  std::unique_ptr<Checkpoint> target_, drafter_checkpoint_;
  std::unique_ptr<Ops> ops_;
  KvArena arena_;
  Gemma4 model_;
  std::unique_ptr<Drafter> drafter_;
  std::unique_ptr<RowSampler> row_sampler_;
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_STEP_MODEL_H_
