#include "model/tensor_spec.h"

#include <fmt/format.h>

namespace lapidary {
namespace {

class SpecWriter {
 public:
  explicit SpecWriter(std::string prefix) : prefix_(std::move(prefix)) {}
  void Add(const std::string& name, std::vector<int64_t> shape, TensorUse use = TensorUse::kText) {
    specs_.push_back({prefix_ + name, std::move(shape), "BF16", use, false});
  }
  void AddI64(const std::string& name, std::vector<int64_t> shape) {
    specs_.push_back({prefix_ + name, std::move(shape), "I64", TensorUse::kText, false});
  }
  // A linear of a tower, with its four clip bounds if the tower has them.
  void AddTowerLinear(const std::string& name, int64_t out, int64_t in, bool clipped) {
    Add(name + ".linear.weight", {out, in}, TensorUse::kTower);
    if (!clipped) return;
    for (const char* bound : {"input_min", "input_max", "output_min", "output_max"})
      specs_.push_back({prefix_ + name + "." + bound, {}, "BF16", TensorUse::kTower, true});
  }
  void AddTower(const std::string& name, std::vector<int64_t> shape) {
    Add(name, std::move(shape), TensorUse::kTower);
  }
  void MoveTo(std::vector<TensorSpec>& out) {
    for (TensorSpec& spec : specs_) out.push_back(std::move(spec));
  }

 private:
  std::string prefix_;
  std::vector<TensorSpec> specs_;
};

void AddAttention(SpecWriter& w, const ModelConfig& c, const LayerConfig& layer) {
  const int64_t q = int64_t{c.num_heads} * layer.head_dim,
                kv = int64_t{layer.num_kv_heads} * layer.head_dim;
  w.Add("self_attn.q_proj.weight", {q, c.hidden});
  w.Add("self_attn.q_norm.weight", {layer.head_dim});
  w.Add("self_attn.o_proj.weight", {c.hidden, q});
  if (c.is_drafter) return;
  const TensorUse use = layer.owns_kv ? TensorUse::kText : TensorUse::kIgnored;
  w.Add("self_attn.k_proj.weight", {kv, c.hidden}, use);
  w.Add("self_attn.k_norm.weight", {layer.head_dim}, use);
  if (!layer.k_eq_v) w.Add("self_attn.v_proj.weight", {kv, c.hidden}, use);
}

void AddLayer(const std::string& prefix, const ModelConfig& c, const LayerConfig& layer,
              std::vector<TensorSpec>& out) {
  SpecWriter w(prefix);
  const int64_t d = c.hidden;
  for (const char* norm : {"input_layernorm", "post_attention_layernorm",
                           "pre_feedforward_layernorm", "post_feedforward_layernorm"})
    w.Add(std::string(norm) + ".weight", {d});
  w.Add("layer_scalar", {1});
  AddAttention(w, c, layer);
  w.Add("mlp.gate_proj.weight", {layer.mlp_width, d});
  w.Add("mlp.up_proj.weight", {layer.mlp_width, d});
  w.Add("mlp.down_proj.weight", {d, layer.mlp_width});
  if (c.moe.num_experts > 0) {
    w.Add("router.proj.weight", {c.moe.num_experts, d});
    w.Add("router.scale", {d});
    w.Add("router.per_expert_scale", {c.moe.num_experts});
    w.Add("experts.gate_up_proj", {c.moe.num_experts, int64_t{2} * c.moe.width, d});
    w.Add("experts.down_proj", {c.moe.num_experts, d, c.moe.width});
    for (const char* norm : {"pre_feedforward_layernorm_2", "post_feedforward_layernorm_1",
                             "post_feedforward_layernorm_2"})
      w.Add(std::string(norm) + ".weight", {d});
  }
  if (c.ple_width > 0) {
    w.Add("per_layer_input_gate.weight", {c.ple_width, d});
    w.Add("per_layer_projection.weight", {d, c.ple_width});
    w.Add("post_per_layer_input_norm.weight", {d});
  }
  w.MoveTo(out);
}

void AddVision(const ModelConfig& c, const VisionConfig& v, std::vector<TensorSpec>& out) {
  SpecWriter w("model.vision_tower.");
  const int64_t h = v.hidden, heads = int64_t{v.num_heads} * v.head_dim;
  w.AddTower("patch_embedder.input_proj.weight", {h, int64_t{3} * v.patch_size * v.patch_size});
  w.AddTower("patch_embedder.position_embedding_table", {2, v.position_embeddings, h});
  for (int i = 0; i < v.num_layers; ++i) {
    const std::string layer = fmt::format("encoder.layers.{}.", i);
    for (const char* norm : {"input_layernorm", "post_attention_layernorm",
                             "pre_feedforward_layernorm", "post_feedforward_layernorm"})
      w.AddTower(layer + norm + ".weight", {h});
    w.AddTower(layer + "self_attn.q_norm.weight", {v.head_dim});
    w.AddTower(layer + "self_attn.k_norm.weight", {v.head_dim});
    for (const char* name : {"q_proj", "k_proj", "v_proj"})
      w.AddTowerLinear(layer + "self_attn." + name, heads, h, v.clipped_linears);
    w.AddTowerLinear(layer + "self_attn.o_proj", h, heads, v.clipped_linears);
    w.AddTowerLinear(layer + "mlp.gate_proj", v.mlp_width, h, v.clipped_linears);
    w.AddTowerLinear(layer + "mlp.up_proj", v.mlp_width, h, v.clipped_linears);
    w.AddTowerLinear(layer + "mlp.down_proj", h, v.mlp_width, v.clipped_linears);
  }
  if (v.standardize) {
    w.AddTower("std_bias", {h});
    w.AddTower("std_scale", {h});
  }
  w.MoveTo(out);
  out.push_back({"model.embed_vision.embedding_projection.weight",
                 {c.hidden, h},
                 "BF16",
                 TensorUse::kTower,
                 false});
}

void AddAudioLayer(SpecWriter& w, const std::string& layer, const AudioConfig& a) {
  const int64_t h = a.hidden;
  for (const char* name : {"feed_forward1", "feed_forward2"}) {
    const std::string ff = layer + name;
    w.AddTowerLinear(ff + ".ffw_layer_1", 4 * h, h, true);
    w.AddTowerLinear(ff + ".ffw_layer_2", h, 4 * h, true);
    w.AddTower(ff + ".pre_layer_norm.weight", {h});
    w.AddTower(ff + ".post_layer_norm.weight", {h});
  }
  for (const char* name : {"q_proj", "k_proj", "v_proj", "post"})
    w.AddTowerLinear(layer + "self_attn." + name, h, h, true);
  w.AddTower(layer + "self_attn.relative_k_proj.weight", {h, h});
  w.AddTower(layer + "self_attn.per_dim_scale", {h / a.num_heads});
  w.AddTowerLinear(layer + "lconv1d.linear_start", 2 * h, h, true);
  w.AddTowerLinear(layer + "lconv1d.linear_end", h, h, true);
  w.AddTower(layer + "lconv1d.depthwise_conv1d.weight", {h, 1, a.conv_kernel});
  for (const char* norm : {"lconv1d.pre_layer_norm", "lconv1d.conv_norm", "norm_pre_attn",
                           "norm_post_attn", "norm_out"})
    w.AddTower(layer + norm + ".weight", {h});
}

void AddAudio(const ModelConfig& c, const AudioConfig& a, std::vector<TensorSpec>& out) {
  SpecWriter w("model.audio_tower.");
  constexpr int64_t kMelBins = 128;
  w.AddTower("subsample_conv_projection.layer0.conv.weight", {a.conv_channels[0], 1, 3, 3});
  w.AddTower("subsample_conv_projection.layer0.norm.weight", {a.conv_channels[0]});
  w.AddTower("subsample_conv_projection.layer1.conv.weight",
             {a.conv_channels[1], a.conv_channels[0], 3, 3});
  w.AddTower("subsample_conv_projection.layer1.norm.weight", {a.conv_channels[1]});
  w.AddTower("subsample_conv_projection.input_proj_linear.weight",
             {a.hidden, kMelBins / 4 * a.conv_channels[1]});
  for (int i = 0; i < a.num_layers; ++i) AddAudioLayer(w, fmt::format("layers.{}.", i), a);
  w.AddTower("output_proj.weight", {a.output_dims, a.hidden});
  w.AddTower("output_proj.bias", {a.output_dims});
  w.MoveTo(out);
  out.push_back({"model.embed_audio.embedding_projection.weight",
                 {c.hidden, a.output_dims},
                 "BF16",
                 TensorUse::kTower,
                 false});
}

}  // namespace

std::vector<TensorSpec> TensorSpecs(const ModelConfig& config) {
  std::vector<TensorSpec> specs;
  const std::string prefix = config.is_drafter ? "model." : "model.language_model.";
  SpecWriter w(prefix);
  w.Add("embed_tokens.weight", {config.vocab_size, config.hidden});
  w.Add("norm.weight", {config.hidden});
  if (config.ple_width > 0) {
    const int64_t columns = int64_t{config.num_layers()} * config.ple_width;
    w.Add("embed_tokens_per_layer.weight", {config.ple_vocab, columns});
    w.Add("per_layer_model_projection.weight", {columns, config.hidden});
    w.Add("per_layer_projection_norm.weight", {config.ple_width});
  }
  w.MoveTo(specs);
  for (int i = 0; i < config.num_layers(); ++i)
    AddLayer(fmt::format("{}layers.{}.", prefix, i), config, config.layers[static_cast<size_t>(i)],
             specs);
  if (config.vision) AddVision(config, *config.vision, specs);
  if (config.audio) AddAudio(config, *config.audio, specs);
  if (config.is_drafter) {
    SpecWriter d("");
    d.Add("pre_projection.weight", {config.hidden, int64_t{2} * config.target_hidden});
    d.Add("post_projection.weight", {config.target_hidden, config.hidden});
    if (config.centroids.num_centroids > 0) {
      d.Add("masked_embedding.centroids.weight", {config.centroids.num_centroids, config.hidden});
      d.AddI64("masked_embedding.token_ordering", {config.vocab_size});
    }
    d.MoveTo(specs);
  }
  return specs;
}

}  // namespace lapidary
