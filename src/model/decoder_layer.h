// One decoder layer of Gemma 4 (GEMMA4.md 3.1 to 3.6), target and drafter alike.
#ifndef LAPIDARY_MODEL_DECODER_LAYER_H_
#define LAPIDARY_MODEL_DECODER_LAYER_H_

#include "model/activations.h"
#include "model/config.h"
#include "model/weights.h"
#include "ops/ops.h"

namespace lapidary {

// A layer with everything it needs, resolved once at start.
struct Layer {
  const LayerConfig* config = nullptr;
  const LayerWeights* weights = nullptr;
  AttentionSpec attention;
  MoeConfig moe;
  float norm_eps = 1e-6f;

  QkvSpec qkv_spec() const {
    return {weights->q_norm, weights->k_norm, true, config->owns_kv, config->k_eq_v};
  }
  int64_t q_width() const { return int64_t{attention.num_heads} * config->head_dim; }
  int64_t kv_width() const { return int64_t{2} * config->num_kv_heads * config->head_dim; }
};

// Resolves layer `index`; `kv` is the cache it reads.
Layer MakeLayer(const ModelConfig& config, const ModelWeights& weights, int index,
                const LayerKv& kv);

// On entry h = input_norm(x). On exit x holds this layer's output and h = next_norm(x). ple: this
// layer's per-layer input [T,P], or empty.
void DecoderLayer(Ops& ops, const Layer& layer, const RowSet& rows, Activations& a, Tensor ple,
                  Tensor next_norm);

// The same where only some rows go on: K and V of all `rows` are stored; then x and h are cut down
// to `kept` and the layer runs on these. On entry x and h hold all rows, on exit the kept ones.
void DecoderLayerKeeping(Ops& ops, const Layer& layer, const RowSet& rows,
                         const std::vector<int32_t>& kept, Activations& a, Tensor ple,
                         Tensor next_norm);

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_DECODER_LAYER_H_
