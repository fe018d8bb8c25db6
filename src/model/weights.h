// Weights of one model as tensors over mapped or owned memory. Names and shapes: GEMMA4.md 10.
#ifndef LAPIDARY_MODEL_WEIGHTS_H_
#define LAPIDARY_MODEL_WEIGHTS_H_

#include <vector>

#include "device/tensor.h"
#include "ops/linear_weight.h"

namespace lapidary {

struct MoeWeights {
  Tensor router_scale;                          // [D]
  Tensor router_proj;                           // [E,D]
  Tensor per_expert_scale;                      // [E]
  Tensor gate_up;                               // [E,2F,D], rows 0..F-1 gate, F..2F-1 up
  Tensor down;                                  // [E,D,F]
  Tensor pre_norm_2, post_norm_1, post_norm_2;  // [D]
};

struct LayerWeights {
  Tensor input_norm, post_attn_norm, pre_mlp_norm, post_mlp_norm;  // [D]
  float layer_scalar = 1.0f;
  LinearWeight
      qkv;  // rows Q, then K, then V; Q and K in K=V layers; Q alone in layers without own K and V
  Tensor q_norm;  // [Dh]
  Tensor k_norm;  // [Dh], empty without own K and V
  LinearWeight o;
  LinearWeight gate_up;  // rows gate, then up
  LinearWeight down;
  MoeWeights moe;                         // empty tensors without MoE
  LinearWeight ple_gate, ple_projection;  // [P,D], [D,P]; empty without per-layer embeddings
  Tensor ple_norm;                        // [D]
};

struct ModelWeights {
  Tensor embed;  // [V,D] bf16, also the tied head
  Tensor final_norm;
  std::vector<LayerWeights> layers;
  Tensor ple_embed;                   // [Vp,L*P]
  LinearWeight ple_model_projection;  // [L*P,D]
  Tensor ple_projection_norm;         // [P]

  // Drafter only.
  LinearWeight pre_projection;   // [D,2*target D]
  LinearWeight post_projection;  // [target D,D]
  Tensor centroids;              // [C,D], empty without a centroid head
  Tensor token_ordering;         // [V] int64, a checked permutation
};

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_WEIGHTS_H_
