#include "model/bind_weights.h"

namespace lapidary {
namespace {

using Find = std::function<Tensor(const std::string&)>;

LayerWeights BindLayer(const ModelConfig& config, const LayerConfig& layer,
                       const std::string& prefix, const Find& find, Device& device) {
  const auto get = [&](const char* name) { return find(prefix + name); };
  LayerWeights w;
  w.input_norm = get("input_layernorm.weight");
  w.post_attn_norm = get("post_attention_layernorm.weight");
  w.pre_mlp_norm = get("pre_feedforward_layernorm.weight");
  w.post_mlp_norm = get("post_feedforward_layernorm.weight");
  Bf16 scalar;
  device.CopyOut(&scalar, get("layer_scalar").bf16(), sizeof(scalar));
  w.layer_scalar = ToFloat(scalar);
  const Tensor q = get("self_attn.q_proj.weight");
  if (!layer.owns_kv) {
    w.qkv = {q};
  } else {
    const Tensor k = get("self_attn.k_proj.weight");
    if (layer.k_eq_v)
      w.qkv = {q, k};
    else
      w.qkv = {q, k, get("self_attn.v_proj.weight")};
    w.k_norm = get("self_attn.k_norm.weight");
  }
  w.q_norm = get("self_attn.q_norm.weight");
  w.o = {get("self_attn.o_proj.weight")};
  w.gate_up = {get("mlp.gate_proj.weight"), get("mlp.up_proj.weight")};
  w.down = {get("mlp.down_proj.weight")};
  if (config.moe.num_experts > 0) {
    w.moe.router_scale = get("router.scale");
    w.moe.router_proj = get("router.proj.weight");
    w.moe.per_expert_scale = get("router.per_expert_scale");
    w.moe.gate_up = get("experts.gate_up_proj");
    w.moe.down = get("experts.down_proj");
    w.moe.pre_norm_2 = get("pre_feedforward_layernorm_2.weight");
    w.moe.post_norm_1 = get("post_feedforward_layernorm_1.weight");
    w.moe.post_norm_2 = get("post_feedforward_layernorm_2.weight");
  }
  if (config.ple_width > 0) {
    w.ple_gate = {get("per_layer_input_gate.weight")};
    w.ple_projection = {get("per_layer_projection.weight")};
    w.ple_norm = get("post_per_layer_input_norm.weight");
  }
  return w;
}

}  // namespace

ModelWeights BindWeights(const ModelConfig& config, const Find& find, Device& device) {
  ModelWeights weights;
  const std::string prefix = config.is_drafter ? "model." : "model.language_model.";
  weights.embed = find(prefix + "embed_tokens.weight");
  weights.final_norm = find(prefix + "norm.weight");
  for (int i = 0; i < config.num_layers(); ++i)
    weights.layers.push_back(BindLayer(config, config.layers[static_cast<size_t>(i)],
                                       fmt::format("{}layers.{}.", prefix, i), find, device));
  if (config.ple_width > 0) {
    weights.ple_embed = find(prefix + "embed_tokens_per_layer.weight");
    weights.ple_model_projection = {find(prefix + "per_layer_model_projection.weight")};
    weights.ple_projection_norm = find(prefix + "per_layer_projection_norm.weight");
  }
  if (!config.is_drafter) return weights;
  weights.pre_projection = {find("pre_projection.weight")};
  weights.post_projection = {find("post_projection.weight")};
  if (config.centroids.num_centroids > 0) {
    weights.centroids = find("masked_embedding.centroids.weight");
    weights.token_ordering = find("masked_embedding.token_ordering");
  }
  return weights;
}

}  // namespace lapidary
