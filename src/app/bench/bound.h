// Bound: how fast a run could have been on its device. Prompts at the multiplication ceiling; the
// products of a decode step and its attention each at the read ceiling, or at the other where that
// takes longer; no launches, no sampling, no waiting. What it counts follows from config.json and
// from what the run was.
#ifndef LAPIDARY_APP_BENCH_BOUND_H_
#define LAPIDARY_APP_BENCH_BOUND_H_

#include <cstdint>
#include <vector>

#include "device/tensor.h"
#include "model/config.h"
#include "ops/ceilings.h"

namespace lapidary {

// What has to be read once, and the arithmetic.
struct Work {
  double bytes = 0, flops = 0;
};

// Of a step: one part waits for the other, layer by layer.
struct StepWork {
  Work products, attention;
  double bytes() const { return products.bytes + attention.bytes; }
  // Each part at the slower of the two ceilings.
  double SecondsAt(const Ceilings& ceilings) const;
};

class ModelWork {
 public:
  // The KV cache is in `kv_dtype`, that of full layers folded or not. fast_prefill: rows of a
  // prompt stop after the last layer that owns K and V, but the last one.
  ModelWork(const ModelConfig& config, DType kv_dtype, bool folds, bool fast_prefill);

  // One row each of this many sequences, or several (drafts to verify), whose contexts are as long.
  // MoE layers read the experts that independent rows would choose.
  StepWork Decode(double num_sequences, double rows_a_sequence, double context) const;
  // Arithmetic only: weights are read for many rows.
  StepWork Prefill(int prompt_length) const;

 private:
  struct Layer {
    double weight_bytes = 0;  // but experts
    double kv_bytes = 0;      // a key
    double key_flops = 0;     // a row and visible key
    int window = 0;           // 0: all keys
    bool of_prompts = true;   // runs on every row of a prompt
  };
  double Visible(const Layer& layer, double context) const;

  std::vector<Layer> layers_;
  double outside_bytes_ = 0;  // weights of no layer, but these:
  double head_bytes_ = 0;     // of rows that are drawn from
  double head_share_ = 1;     // of it that a row looks at (centroids)
  double row_bytes_ = 0;      // of the per-layer table, a row
  double expert_bytes_ = 0;   // of one expert in one layer
  int num_experts_ = 0, top_k_ = 0;
};

// What a run was.
struct RunShape {
  std::vector<std::pair<int, int>> lengths;  // tokens in and out of each request
  double num_sequences = 1;                  // in a decode step
  double accept_length = 1;                  // tokens a decode step gives a sequence
  double drafts_a_step = 0;
};

struct RunBound {
  double prefill_s = 0;  // of all prompts
  double step_ms = 0;    // a decode step with its drafts
  double step_bytes = 0;
  double tok_per_s = 0;         // output tokens, prompts included
  double decode_tok_per_s = 0;  // of one sequence
};
// `drafter` may be null.
RunBound BoundOf(const RunShape& run, const ModelWork& target, const ModelWork* drafter,
                 const Ceilings& ceilings);

}  // namespace lapidary

#endif  // LAPIDARY_APP_BENCH_BOUND_H_
