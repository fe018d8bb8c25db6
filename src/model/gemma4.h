// Gemma4: the target model's forward pass over paged KV, written in the vocabulary of Ops.
#ifndef LAPIDARY_MODEL_GEMMA4_H_
#define LAPIDARY_MODEL_GEMMA4_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kv/arena.h"
#include "model/config.h"
#include "model/weights.h"
#include "ops/batch.h"
#include "ops/ops.h"

namespace lapidary {

struct StepOutput {
  Tensor hidden;  // [O,D] f32, after the final norm: what the drafter receives
  Tensor logits;  // [O,V] f32, after the soft cap
};

// Whether full layers whose V is K before its norm keep the two folded (kv/layout.h).
enum class KvFold : uint8_t { kAuto, kOn, kOff };  // auto: on a GPU, where model and kernels can
struct KvFoldChoice {
  bool folds = false;
  std::string reason;  // half a sentence about the model
};
// Throws StartupError where folding is asked for and impossible.
KvFoldChoice ChooseKvFold(const ModelConfig& config, KvFold fold, bool on_gpu);

// The layers' shapes as the KV layout wants them.
std::vector<KvLayerShape> KvShapes(const ModelConfig& config, bool folds = false);

class Gemma4 {
 public:
  struct Limits {
    int max_rows = 0;         // T of a step
    int max_output_rows = 0;  // O of a step
    bool fast_prefill =
        true;  // rows that are not output rows stop after the last layer that owns KV
    DType activations = DType::kF32;
    int32_t max_scratch_pages = 0;  // of a step's chunks (BatchBuilder), page 0 included
    bool checks_tables = false;     // every page table entry, before each attention
  };

  // config, weights, ops and arena must outlive the model. All memory is allocated here.
  Gemma4(const ModelConfig& config, const ModelWeights& weights, Ops& ops, KvArena& arena,
         const Limits& limits);
  ~Gemma4();

  // Runs one step over a batch in host memory: writes K and V of all rows, returns hidden state and
  // logits of its output_rows on the device, valid until the next call. Not thread-safe.
  StepOutput Forward(const Batch& host_batch) { return ForwardPlaced(ops_.PlaceBatch(host_batch)); }
  // The same over a batch that is on the device: queues work, of the same kind for the same sizes.
  StepOutput ForwardPlaced(const Batch& batch);

  // Called after every layer, on the thread of Forward: the heartbeat of a slow backend.
  void SetLayerHook(std::function<void()> hook) { layer_hook_ = std::move(hook); }
  // [max output rows,V] f32, where the logits of a step lie: a drafter's may take their place until
  // the next step.
  Tensor logits_memory() const;
  // Fills activations and scratch with the pattern of NaN, between two steps: no result changes.
  void Poison();

  const ModelConfig& config() const { return config_; }
  // Bytes of activations that `limits` would allocate: part of the memory formula.
  static int64_t WorkspaceBytes(const ModelConfig& config, const Limits& limits);

 private:
  struct Workspace;
  const ModelConfig& config_;
  const ModelWeights& weights_;
  Ops& ops_;
  Limits limits_;
  std::function<void()> layer_hook_;
  std::unique_ptr<Workspace> workspace_;
};

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_GEMMA4_H_
