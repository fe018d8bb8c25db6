// StepModel: a model and, if there is one, its drafter on one device, as a rank drives them.
#ifndef LAPIDARY_ENGINE_STEP_MODEL_H_
#define LAPIDARY_ENGINE_STEP_MODEL_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "engine/decode_graphs.h"
#include "kv/arena.h"
#include "model/activations.h"
#include "model/drafter.h"
#include "model/gemma4.h"
#include "model/loader.h"
#include "ops/batch.h"
#include "ops/row_sampler.h"
#include "ops/slot_states.h"

namespace lapidary {

// Called on the rank's thread only; outputs are valid until the next call.
class StepModel {
 public:
  virtual ~StepModel() = default;
  virtual int vocab_size() const = 0;
  virtual int hidden() const = 0;  // D: floats of a state that goes to the drafter
  virtual int window() const = 0;
  virtual bool has_drafter() const = 0;
  // The host computes: calls return when they are done.
  virtual bool is_host() const { return true; }
  // batch lies in host memory; on a device its decode rows are placed by slot_states there. The
  // output lies where row_sampler and slot_states read it.
  virtual StepOutput Forward(const Batch& batch) = 0;
  // A pass over rows of the step's SlotStates::PlaceDrafts and the tables, in host memory, of the
  // newest Forward, with hidden as Drafter::Step.
  virtual DraftOutput Draft(Tensor tokens, Tensor hidden, const RowSet& rows) = 0;
  // For the logits of both.
  virtual RowSampler& row_sampler() = 0;
  virtual SlotStates& slot_states() = 0;
  // When it last finished a layer, on the steady clock, 0: unknown; thread-safe.
  virtual int64_t last_beat_ms() const { return 0; }
};

struct StepModelOptions {
  KvLayout layout;
  int32_t num_slabs = 0;  // slab 0 included
  int max_running = 0;    // sequences of a step
  int max_drafts = 0;     // a sequence
  int32_t table_cells = 0;
  Gemma4::Limits limits;
  int num_threads = 0;  // 0: all cores
  bool batch_invariant = false;
};

// The real one, on the device where the weights of the target lie, or on the CPU. drafter may be
// null, or lies there too. Allocates everything.
class Gemma4StepModel : public StepModel {
 public:
  static constexpr int32_t kWarmUpSlabs = 2;

  Gemma4StepModel(std::unique_ptr<Checkpoint> target, std::unique_ptr<Checkpoint> drafter,
                  const StepModelOptions& options);

  // On a GPU, before the first step: runs the largest steps once, so that every kernel is loaded
  // and every workspace has its size. Returns the bytes of the device that a KV cache may take.
  int64_t WarmUp();
  // Then with the cache there will be; captures the graphs of decode steps.
  void Restart(const StepModelOptions& options);

  int vocab_size() const override { return target_->config.vocab_size; }
  int hidden() const override { return target_->config.hidden; }
  int window() const override { return target_->config.window; }
  bool has_drafter() const override { return drafter_checkpoint_ != nullptr; }
  bool is_host() const override { return ops_->device().is_host(); }
  StepOutput Forward(const Batch& batch) override;
  DraftOutput Draft(Tensor tokens, Tensor hidden, const RowSet& rows) override;
  RowSampler& row_sampler() override { return *row_sampler_; }
  SlotStates& slot_states() override { return *slot_states_; }
  int64_t last_beat_ms() const override { return last_beat_ms_; }

  KvArena& arena() { return *arena_; }
  // Between two steps; KvArena::Poison for everything a step works in.
  void PoisonWorkspaces();

 private:
  void Build(const StepModelOptions& options);
  void WarmUpDrafter();

  std::atomic<int64_t> last_beat_ms_{0};
  std::unique_ptr<Checkpoint> target_, drafter_checkpoint_;
  std::shared_ptr<Ops> ops_;
  StepModelOptions options_;
  std::unique_ptr<KvArena> arena_;
  std::unique_ptr<Gemma4> model_;
  std::unique_ptr<Drafter> drafter_;
  std::unique_ptr<SlotStates> slot_states_;
  std::unique_ptr<RowSampler> row_sampler_;
  std::unique_ptr<DecodeGraphs> graphs_;
  Tensor full_pages_, sliding_pages_;  // of the newest step, where the ops read them
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_STEP_MODEL_H_
