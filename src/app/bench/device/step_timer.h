// StepTimer: decode steps of a model on its device, as graphs, without an engine around them.
#ifndef LAPIDARY_APP_BENCH_DEVICE_STEP_TIMER_H_
#define LAPIDARY_APP_BENCH_DEVICE_STEP_TIMER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "kv/arena.h"
#include "model/gemma4.h"
#include "model/loader.h"
#include "ops/batch.h"
#include "ops/ops.h"

namespace lapidary {

// Of a step: the time of its dense products, all layers' and the head's: what the step takes less
// without them. The experts' products are left out on both sides, as other values choose others.
struct ProductTime {
  double ms = 0;
  double weight_bytes = 0;
};

class StepTimer {
 public:
  // Of steps of up to max_batch sequences that see up to max_context keys; as much KV, folded or
  // not, as these take or the device has. Throws StartupError.
  StepTimer(const Checkpoint& model, Ops& ops, bool folds, int max_batch, int max_context);

  // Whether the KV of such a step is there.
  bool Fits(int batch, int context) const { return 1 + NumSlabs(batch, context) <= num_slabs_; }
  // Milliseconds of a step, one row a sequence; what the cache holds is nothing in particular.
  double MeasureStep(int batch, int context);
  // On a GPU only.
  ProductTime MeasureProducts(int batch, int context);

 private:
  int64_t NumSlabs(int batch, int context) const;
  Batch Place(int batch, int context);
  std::unique_ptr<Graph> Capture(const Batch& placed);
  double Milliseconds(Graph& graph, int launches) const;

  const Checkpoint& model_;
  Ops& ops_;
  const int max_batch_, num_cells_;
  KvLayout layout_;
  int window_cells_ = 0;  // of a sequence's sliding pages, each there once
  int64_t num_slabs_ = 0;
  std::unique_ptr<KvArena> arena_;
  std::vector<int32_t> full_pages_, sliding_pages_;  // [max_batch, num_cells]
  std::unique_ptr<BatchBuilder> builder_;
  std::unique_ptr<Gemma4> gemma_;
};

}  // namespace lapidary

#endif  // LAPIDARY_APP_BENCH_DEVICE_STEP_TIMER_H_
