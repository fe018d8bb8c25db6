// ModelConfig: what config.json says about one Gemma 4 text model or drafter, resolved per layer
// and checked. Source: GEMMA4.md sections 1, 3, 9, 10; both published forms of config.json.
#ifndef LAPIDARY_MODEL_CONFIG_H_
#define LAPIDARY_MODEL_CONFIG_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace lapidary {

enum class LayerKind : uint8_t { kSliding, kFull };

struct LayerConfig {
  LayerKind kind = LayerKind::kSliding;
  int num_kv_heads = 0;
  int head_dim = 0;
  int mlp_width = 0;
  bool k_eq_v = false;  // no v_proj: V is K before its norm
  bool owns_kv = true;  // false: KV-shared layer (and every drafter layer)
  int kv_layer =
      0;  // the layer whose K and V it reads; its own index when owns_kv; -1 in a drafter
};

struct RopeConfig {
  double theta = 10000.0;
  double rotary_factor =
      1.0;  // "proportional": share of the head that rotates, denominator stays head_dim
};

struct MoeConfig {
  int num_experts = 0;  // 0: no MoE block
  int top_k = 0;
  int width = 0;
};

struct CentroidConfig {
  int num_centroids = 0;  // 0: plain tied head
  int top_k = 0;
};

struct VisionConfig {
  int hidden = 0, mlp_width = 0, num_layers = 0, num_heads = 0, head_dim = 0;
  int patch_size = 0, position_embeddings = 0;
  bool clipped_linears = false, standardize = false;
};

struct AudioConfig {
  int hidden = 0, num_layers = 0, num_heads = 0, output_dims = 0, conv_kernel = 0;
  int conv_channels[2] = {0, 0};
  bool clipped_linears = true;
};

struct ModelConfig {
  bool is_drafter = false;
  int vocab_size = 0;
  int hidden = 0;
  int num_heads = 0;  // query heads, the same in every layer
  int window = 0;     // sliding layers see exactly this many keys, their own included
  int max_position = 0;
  float norm_eps = 1e-6f;
  float logit_softcap = 0;  // 0: none
  int ple_width = 0;        // per-layer embedding width, 0: none
  int ple_vocab = 0;
  bool bidirectional_images = false;  // sliding layers, inside an image block
  RopeConfig sliding_rope, full_rope;
  MoeConfig moe;
  std::vector<LayerConfig> layers;

  // Drafter only.
  int target_hidden = 0;
  CentroidConfig centroids;

  // Ids that stand for image, video or audio positions: without media they are embedded as the pad
  // id, as the reference does.
  std::vector<int> placeholder_ids;
  std::optional<int> bos_id, pad_id;
  std::vector<int> eos_ids;  // of config.json; generation_config.json is read by its own reader
  std::optional<VisionConfig> vision;
  std::optional<AudioConfig> audio;
  std::string family;  // "gemma4" or "gemma4_assistant", for messages

  int num_layers() const { return static_cast<int>(layers.size()); }
  // sqrt(hidden) rounded to bf16, whatever the arithmetic (GEMMA4.md 2).
  float embed_scale() const;
  // The last layer of this kind that owns K and V: what KV-shared layers and the drafter read. -1:
  // none.
  int donor(LayerKind kind) const;
};

// `text` is config.json's content, `where` names it in errors. Every number is range-checked here,
// so that products of two config numbers fit in int64 and nothing is allocated from an unchecked
// one.
Result<ModelConfig> ParseModelConfig(std::string_view text, std::string_view where);
Result<ModelConfig> ReadModelConfig(const std::filesystem::path& model_dir);

// Whether `drafter` can draft for `target`: hidden sizes, vocabulary, head sizes, KV heads and
// window agree.
Status CheckDrafterFits(const ModelConfig& target, const ModelConfig& drafter);

// generation_config.json: sampling defaults and stop ids; absent file or field keeps these values.
struct GenerationConfig {
  float temperature = 1.0f;
  int top_k = 64;
  float top_p = 0.95f;
  std::vector<int> eos_ids, suppress_ids;
};
Result<GenerationConfig> ReadGenerationConfig(const std::filesystem::path& model_dir,
                                              int vocab_size);

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_CONFIG_H_
