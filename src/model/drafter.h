// Drafter: the assistant network (GEMMA4.md 9). Drafts one token a pass over the target's cached K
// and V; writes no cache.
#ifndef LAPIDARY_MODEL_DRAFTER_H_
#define LAPIDARY_MODEL_DRAFTER_H_

#include <memory>

#include "kv/arena.h"
#include "model/config.h"
#include "model/weights.h"
#include "ops/ops.h"

namespace lapidary {

// Which constant position a burst uses; n = index of the newest token, whose K and V are not
// computed yet.
enum class DraftPosition : uint8_t { kNewest, kLastKv };  // n, n - 1

struct DraftOutput {
  Tensor logits;  // [B,V] f32
  Tensor hidden;  // [B,target D] f32: the state for the next pass, where the one before it was
};

class Drafter {
 public:
  struct Limits {
    int max_rows = 0;  // bounds B
    DType activations = DType::kF32;
    Tensor logits;  // [max rows or more,V] f32: Gemma4::logits_memory of the target
  };

  // All references must outlive the drafter.
  Drafter(const ModelConfig& target_config, const ModelWeights& target_weights,
          const ModelConfig& config, const ModelWeights& weights, Ops& ops, KvArena& arena,
          const Limits& limits);
  ~Drafter();

  // One pass. tokens [B] i32, in host memory as the rows: the newest token of each row, or its
  // previous draft; hidden [B,target D] f32: the target's state that produced the newest token, or
  // the previous pass's; it is overwritten. rows: positions are the burst's constant one, key_ends
  // the number of tokens that have target K and V. Logits are valid until the next call or the
  // target's next step.
  DraftOutput Step(Tensor host_tokens, Tensor hidden, const RowSet& host_rows);
  // The same with tokens and rows where the ops read them.
  DraftOutput StepPlaced(Tensor tokens, Tensor hidden, const RowSet& rows);

  // As Gemma4::Poison, between two bursts.
  void Poison();

 private:
  struct Workspace;
  const ModelConfig& target_config_;
  const ModelWeights& target_weights_;
  const ModelConfig& config_;
  const ModelWeights& weights_;
  Ops& ops_;
  Limits limits_;
  std::unique_ptr<Workspace> workspace_;
};

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_DRAFTER_H_
