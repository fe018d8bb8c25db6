// StepModel: a model and, if there is one, its drafter on one device, as a rank drives them.
#ifndef LAPIDARY_ENGINE_STEP_MODEL_H_
#define LAPIDARY_ENGINE_STEP_MODEL_H_

#include <cstdint>
#include <memory>

#include "kv/layout.h"
#include "model/drafter.h"
#include "model/gemma4.h"
#include "model/loader.h"
#include "ops/batch.h"

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
std::unique_ptr<StepModel> MakeGemma4StepModel(std::unique_ptr<Checkpoint> target,
                                               std::unique_ptr<Checkpoint> drafter,
                                               const StepModelOptions& options);

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_STEP_MODEL_H_
