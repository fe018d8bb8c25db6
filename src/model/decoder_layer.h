// One decoder layer of Gemma 4 (GEMMA4.md 3.1 to 3.6), target and drafter alike.
#ifndef LAPIDARY_MODEL_DECODER_LAYER_H_
#define LAPIDARY_MODEL_DECODER_LAYER_H_

#include "model/activations.h"
#include "model/config.h"
#include "model/weights.h"
#include "ops/batch.h"
#include "ops/ops.h"

namespace lapidary {

// A layer with everything it needs, resolved once at start.
struct Layer {
  const LayerConfig* config = nullptr;
  const LayerWeights* weights = nullptr;
  Tensor k_norm;  // of the layer whose cache it reads
  AttentionSpec attention;
  MoeConfig moe;
  float norm_eps = 1e-6f;
  int index = 0;
  bool checks_tables = false;  // before each attention

  QkvSpec qkv_spec() const {
    return {weights->q_norm, k_norm, true, config->owns_kv, config->k_eq_v};
  }
  // Its own sliding K and V pass through scratch.
  bool gathers() const { return config->owns_kv && !attention.full; }
  int64_t q_width() const { return int64_t{attention.num_heads} * config->head_dim; }
  int64_t kv_width() const { return int64_t{2} * config->num_kv_heads * config->head_dim; }
};

// Resolves layer `index`; `kv` is the cache it reads, k_norm the weight of its keys' norm.
Layer MakeLayer(const ModelConfig& config, const ModelWeights& weights, int index,
                const LayerKv& kv, Tensor k_norm);

// On entry h = input_norm(x). On exit x holds this layer's output and h = next_norm(x). ple: this
// layer's per-layer input [T,P], or empty. window_copies: the step's, empty past the KV layers.
void DecoderLayer(Ops& ops, const Layer& layer, const RowSet& rows,
                  std::span<const WindowCopy> window_copies, Activations& a, Tensor ple,
                  Tensor next_norm);

// The same where only the output rows go on: K and V of all rows are stored; then x and h are cut
// down to the output rows and the layer runs on these. On entry x and h hold all rows.
void DecoderLayerKeeping(Ops& ops, const Layer& layer, const Batch& batch, Activations& a,
                         Tensor ple, Tensor next_norm);

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_DECODER_LAYER_H_
