#include "model/tensor_spec.h"

#include <fmt/ranges.h>

#include <utility>

#include "base/checked.h"
#include "model/loader.h"

namespace lapidary {
namespace {

using Shape = std::vector<int64_t>;

// Collects specs under a name prefix.
class SpecList {
 public:
  SpecList(std::vector<TensorSpec>& out, std::string prefix, TensorRole role)
      : out_(out), prefix_(std::move(prefix)), role_(role) {}

  void Add(std::string_view name, Shape shape) { AddAs(role_, name, std::move(shape)); }
  void AddAs(TensorRole role, std::string_view name, Shape shape) {
    out_.push_back({prefix_ + std::string(name), std::move(shape), "BF16", role});
  }
  // A tower's linear, with the four clip scalars when the tower has them.
  void AddClipped(const std::string& name, bool clipped, int64_t rows, int64_t cols) {
    Add(name + ".linear.weight", {rows, cols});
    if (!clipped) return;
    for (const char* scalar : {".input_min", ".input_max", ".output_min", ".output_max"})
      Add(name + scalar, {});
  }

 private:
  std::vector<TensorSpec>& out_;
  std::string prefix_;
  TensorRole role_;
};

void AddAttention(SpecList& list, const ModelConfig& c, const LayerConfig& layer) {
  const int64_t hidden = c.hidden, query = int64_t{c.num_heads} * layer.head_dim,
                kv = int64_t{layer.num_kv_heads} * layer.head_dim;
  const TensorRole role = layer.owns_kv ? TensorRole::kUsed : TensorRole::kUnused;
  list.Add("self_attn.q_proj.weight", {query, hidden});
  if (!c.is_drafter) {
    list.AddAs(role, "self_attn.k_proj.weight", {kv, hidden});
    if (!layer.k_eq_v) list.AddAs(role, "self_attn.v_proj.weight", {kv, hidden});
    list.AddAs(role, "self_attn.k_norm.weight", {layer.head_dim});
  }
  list.Add("self_attn.q_norm.weight", {layer.head_dim});
  list.Add("self_attn.o_proj.weight", {hidden, query});
}

void AddLayer(SpecList& list, const ModelConfig& c, const LayerConfig& layer) {
  const int64_t hidden = c.hidden, width = layer.mlp_width;
  for (const char* norm : {"input_layernorm", "post_attention_layernorm",
                           "pre_feedforward_layernorm", "post_feedforward_layernorm"})
    list.Add(std::string(norm) + ".weight", {hidden});
  list.Add("layer_scalar", {1});
  AddAttention(list, c, layer);
  list.Add("mlp.gate_proj.weight", {width, hidden});
  list.Add("mlp.up_proj.weight", {width, hidden});
  list.Add("mlp.down_proj.weight", {hidden, width});
  if (c.moe.num_experts > 0) {
    const int64_t experts = c.moe.num_experts, expert_width = c.moe.width;
    list.Add("router.proj.weight", {experts, hidden});
    list.Add("router.scale", {hidden});
    list.Add("router.per_expert_scale", {experts});
    list.Add("experts.gate_up_proj", {experts, 2 * expert_width, hidden});
    list.Add("experts.down_proj", {experts, hidden, expert_width});
    for (const char* norm : {"pre_feedforward_layernorm_2", "post_feedforward_layernorm_1",
                             "post_feedforward_layernorm_2"})
      list.Add(std::string(norm) + ".weight", {hidden});
  }
  if (c.ple_width > 0) {
    list.Add("per_layer_input_gate.weight", {c.ple_width, hidden});
    list.Add("per_layer_projection.weight", {hidden, c.ple_width});
    list.Add("post_per_layer_input_norm.weight", {hidden});
  }
}

void AddVision(std::vector<TensorSpec>& out, const ModelConfig& c, const VisionConfig& v) {
  SpecList tower(out, "model.vision_tower.", TensorRole::kTower);
  const int64_t hidden = v.hidden, heads = int64_t{v.num_heads} * v.head_dim, mlp = v.mlp_width;
  tower.Add("patch_embedder.input_proj.weight", {hidden, int64_t{3} * v.patch_size * v.patch_size});
  tower.Add("patch_embedder.position_embedding_table", {2, v.position_embeddings, hidden});
  for (int i = 0; i < v.num_layers; ++i) {
    SpecList layer(out, fmt::format("model.vision_tower.encoder.layers.{}.", i),
                   TensorRole::kTower);
    for (const char* norm : {"input_layernorm", "post_attention_layernorm",
                             "pre_feedforward_layernorm", "post_feedforward_layernorm"})
      layer.Add(std::string(norm) + ".weight", {hidden});
    layer.Add("self_attn.q_norm.weight", {v.head_dim});
    layer.Add("self_attn.k_norm.weight", {v.head_dim});
    for (const char* linear : {"q_proj", "k_proj", "v_proj"})
      layer.AddClipped(std::string("self_attn.") + linear, v.clipped_linears, heads, hidden);
    layer.AddClipped("self_attn.o_proj", v.clipped_linears, hidden, heads);
    layer.AddClipped("mlp.gate_proj", v.clipped_linears, mlp, hidden);
    layer.AddClipped("mlp.up_proj", v.clipped_linears, mlp, hidden);
    layer.AddClipped("mlp.down_proj", v.clipped_linears, hidden, mlp);
  }
  if (v.standardize) {
    tower.Add("std_bias", {hidden});
    tower.Add("std_scale", {hidden});
  }
  SpecList(out, "model.embed_vision.", TensorRole::kTower)
      .Add("embedding_projection.weight", {c.hidden, hidden});
}

void AddAudioLayer(SpecList& layer, const AudioConfig& a) {
  const int64_t hidden = a.hidden;
  for (const char* block : {"feed_forward1.", "feed_forward2."}) {
    const std::string name = block;
    layer.AddClipped(name + "ffw_layer_1", a.clipped_linears, 4 * hidden, hidden);
    layer.AddClipped(name + "ffw_layer_2", a.clipped_linears, hidden, 4 * hidden);
    layer.Add(name + "pre_layer_norm.weight", {hidden});
    layer.Add(name + "post_layer_norm.weight", {hidden});
  }
  for (const char* linear : {"q_proj", "k_proj", "v_proj", "post"})
    layer.AddClipped(std::string("self_attn.") + linear, a.clipped_linears, hidden, hidden);
  layer.Add("self_attn.relative_k_proj.weight", {hidden, hidden});
  layer.Add("self_attn.per_dim_scale", {hidden / a.num_heads});
  layer.AddClipped("lconv1d.linear_start", a.clipped_linears, 2 * hidden, hidden);
  layer.AddClipped("lconv1d.linear_end", a.clipped_linears, hidden, hidden);
  layer.Add("lconv1d.depthwise_conv1d.weight", {hidden, 1, a.conv_kernel});
  for (const char* norm : {"lconv1d.pre_layer_norm", "lconv1d.conv_norm", "norm_pre_attn",
                           "norm_post_attn", "norm_out"})
    layer.Add(std::string(norm) + ".weight", {hidden});
}

void AddAudio(std::vector<TensorSpec>& out, const ModelConfig& c, const AudioConfig& a) {
  constexpr int64_t kMelBins = 128;
  SpecList tower(out, "model.audio_tower.", TensorRole::kTower);
  const int64_t first = a.conv_channels[0], second = a.conv_channels[1];
  const std::string conv = "subsample_conv_projection.";
  tower.Add(conv + "layer0.conv.weight", {first, 1, 3, 3});
  tower.Add(conv + "layer0.norm.weight", {first});
  tower.Add(conv + "layer1.conv.weight", {second, first, 3, 3});
  tower.Add(conv + "layer1.norm.weight", {second});
  // Two convolutions of stride 2 leave a quarter of the mel bins.
  tower.Add(conv + "input_proj_linear.weight", {a.hidden, kMelBins / 4 * second});
  for (int i = 0; i < a.num_layers; ++i) {
    SpecList layer(out, fmt::format("model.audio_tower.layers.{}.", i), TensorRole::kTower);
    AddAudioLayer(layer, a);
  }
  tower.Add("output_proj.weight", {a.output_dims, a.hidden});
  tower.Add("output_proj.bias", {a.output_dims});
  SpecList(out, "model.embed_audio.", TensorRole::kTower)
      .Add("embedding_projection.weight", {c.hidden, a.output_dims});
}

void AddDrafterHead(std::vector<TensorSpec>& out, const ModelConfig& c) {
  SpecList list(out, "", TensorRole::kUsed);
  list.Add("pre_projection.weight", {c.hidden, int64_t{2} * c.target_hidden});
  list.Add("post_projection.weight", {c.target_hidden, c.hidden});
  if (c.centroids.num_centroids == 0) return;
  list.Add("masked_embedding.centroids.weight", {c.centroids.num_centroids, c.hidden});
  list.Add("masked_embedding.token_ordering", {c.vocab_size});
  out.back().dtype = "I64";
}

}  // namespace

bool TensorSpec::MatchesShape(const std::vector<int64_t>& other) const {
  return shape == other || (shape.empty() && other == Shape{1});
}

uint64_t TensorSpec::bytes() const {
  std::optional<int64_t> product = dtype == "I64" ? 8 : 2;
  for (const int64_t dimension : shape)
    if (product) product = CheckedMul(*product, dimension);
  return product ? static_cast<uint64_t>(*product) : UINT64_MAX;
}

std::vector<TensorSpec> TensorSpecs(const ModelConfig& config) {
  std::vector<TensorSpec> out;
  const std::string prefix = config.is_drafter ? "model." : "model.language_model.";
  SpecList top(out, prefix, TensorRole::kUsed);
  top.Add("embed_tokens.weight", {config.vocab_size, config.hidden});
  top.Add("norm.weight", {config.hidden});
  if (config.ple_width > 0) {
    const int64_t all_layers = int64_t{config.num_layers()} * config.ple_width;
    top.Add("embed_tokens_per_layer.weight", {config.ple_vocab, all_layers});
    top.Add("per_layer_model_projection.weight", {all_layers, config.hidden});
    top.Add("per_layer_projection_norm.weight", {config.ple_width});
  }
  for (int i = 0; i < config.num_layers(); ++i) {
    SpecList layer(out, fmt::format("{}layers.{}.", prefix, i), TensorRole::kUsed);
    AddLayer(layer, config, config.layers[static_cast<size_t>(i)]);
  }
  if (config.is_drafter) AddDrafterHead(out, config);
  if (config.vision) AddVision(out, config, *config.vision);
  if (config.audio) AddAudio(out, config, *config.audio);
  return out;
}

std::string PublishedName(std::string_view name, bool is_drafter) {
  constexpr std::string_view kSwapped = "language_model.model.";
  if (name.starts_with("model.")) return std::string(name);
  if (is_drafter) {
    const bool outside = name.starts_with("pre_projection.") ||
                         name.starts_with("post_projection.") ||
                         name.starts_with("masked_embedding.");
    return outside ? std::string(name) : "model." + std::string(name);
  }
  if (name.starts_with(kSwapped))
    return "model.language_model." + std::string(name.substr(kSwapped.size()));
  return "model." + std::string(name);
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

uint64_t WeightBytes(const ModelConfig& config) {
  uint64_t sum = 0;
  for (const TensorSpec& spec : TensorSpecs(config))
    if (spec.role == TensorRole::kUsed && __builtin_add_overflow(sum, spec.bytes(), &sum))
      return UINT64_MAX;
  return sum;
}

}  // namespace lapidary
