#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/bf16.h"
#include "io/file_json.h"
#include "io/mapped_file.h"

namespace lapidary {
namespace {

constexpr uint64_t kMaxConfigBytes = 4 << 20;
// Bounds of config numbers: far above every published model, small enough that no product of a
// shape overflows.
constexpr int kMaxWidth = 1 << 20;
constexpr int kMaxLayers = 1024;
constexpr int kMaxHeads = 4096;
constexpr int kMaxHeadDim = 4096;
constexpr int kMaxVocab = 1 << 24;
constexpr int kMaxPosition = 1 << 24;
constexpr int kMaxExperts = 4096;

// Reads fields of one JSON object; the first error sticks and names the field.
class Fields {
 public:
  Fields(const json::object& object, std::string path, std::optional<Error>& error)
      : object_(object), path_(std::move(path)), error_(error) {}

  const json::value* Find(std::string_view key) const {
    const json::value* value = object_.if_contains(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  int Int(std::string_view key, int low, int high, std::optional<int> fallback = std::nullopt) {
    const json::value* value = Find(key);
    if (value == nullptr) {
      if (!fallback) Fail(key, "is missing");
      return fallback.value_or(low);
    }
    if (!value->is_int64() || value->get_int64() < low || value->get_int64() > high) {
      Fail(key, fmt::format("must be a whole number from {} to {}", low, high));
      return low;
    }
    return static_cast<int>(value->get_int64());
  }

  double Number(std::string_view key, double low, double high,
                std::optional<double> fallback = std::nullopt) {
    const json::value* value = Find(key);
    if (value == nullptr) {
      if (!fallback) Fail(key, "is missing");
      return fallback.value_or(low);
    }
    double number = NAN;
    if (value->is_double()) number = value->get_double();
    if (value->is_int64()) number = static_cast<double>(value->get_int64());
    if (!(low <= number && number <= high)) {
      Fail(key, fmt::format("must be a number from {:g} to {:g}", low, high));
      return low;
    }
    return number;
  }

  bool Bool(std::string_view key, bool fallback) {
    const json::value* value = Find(key);
    if (value == nullptr) return fallback;
    if (!value->is_bool()) Fail(key, "must be true or false");
    return value->is_bool() && value->get_bool();
  }

  std::string String(std::string_view key, std::string fallback) {
    const json::value* value = Find(key);
    if (value == nullptr) return fallback;
    if (!value->is_string()) {
      Fail(key, "must be a string");
      return fallback;
    }
    return std::string(value->get_string());
  }

  // A number or a list of numbers.
  std::vector<int> IntList(std::string_view key, int low, int high) {
    const json::value* value = Find(key);
    std::vector<int> list;
    if (value == nullptr) return list;
    const auto add = [&](const json::value& item) {
      if (!item.is_int64() || item.get_int64() < low || item.get_int64() > high)
        Fail(key, fmt::format("must hold whole numbers from {} to {}", low, high));
      else
        list.push_back(static_cast<int>(item.get_int64()));
    };
    if (!value->is_array()) {
      add(*value);
    } else if (value->get_array().size() > 64) {
      Fail(key, "has more than 64 entries");
    } else {
      for (const json::value& item : value->get_array()) add(item);
    }
    return list;
  }

  const json::object* Object(std::string_view key) {
    const json::value* value = Find(key);
    if (value == nullptr) return nullptr;
    if (!value->is_object()) Fail(key, "must be an object");
    return value->if_object();
  }

  void Fail(std::string_view key, const std::string& rule) {
    if (error_) return;
    const std::string field = path_ + std::string(key);
    error_ = Error{fmt::format("{} {}", field, rule), field, ""};
  }
  const std::string& path() const { return path_; }
  std::optional<Error>& error() { return error_; }

 private:
  const json::object& object_;
  std::string path_;
  std::optional<Error>& error_;
};

// head_dim and num_key_value_heads of a layer as `per_layer_config` gives them (configs saved by
// transformers >= 5.17).
struct LayerOverride {
  std::optional<int> head_dim, num_kv_heads;
};

std::map<int, LayerOverride> ReadOverrides(Fields& text, int num_layers) {
  std::map<int, LayerOverride> overrides;
  const json::object* all = text.Object("per_layer_config");
  if (all == nullptr) return overrides;
  for (const auto& member : *all) {
    const std::string key(member.key().substr(0, 8));
    const bool decimal = !key.empty() && key.find_first_not_of("0123456789") == std::string::npos;
    const int layer = decimal ? std::atoi(key.c_str()) : -1;
    if (layer < 0 || layer >= num_layers || !member.value().is_object()) {
      text.Fail("per_layer_config." + key, "is not an object for one of the layers");
      return overrides;
    }
    Fields fields(member.value().get_object(), text.path() + "per_layer_config." + key + ".",
                  text.error());
    LayerOverride& entry = overrides[layer];
    if (fields.Find("head_dim") != nullptr) entry.head_dim = fields.Int("head_dim", 2, kMaxHeadDim);
    if (fields.Find("num_key_value_heads") != nullptr)
      entry.num_kv_heads = fields.Int("num_key_value_heads", 1, kMaxHeads);
  }
  return overrides;
}

RopeConfig ReadRope(Fields& text, std::string_view kind, const RopeConfig& fallback) {
  RopeConfig rope = fallback;
  const json::object* parameters = text.Object("rope_parameters");
  if (parameters == nullptr) return rope;
  Fields all(*parameters, text.path() + "rope_parameters.", text.error());
  const json::object* one = all.Object(kind);
  if (one == nullptr) {
    all.Fail(kind, "is missing");
    return rope;
  }
  Fields fields(*one, all.path() + std::string(kind) + ".", text.error());
  rope.theta = fields.Number("rope_theta", 1.0, 1e12, fallback.theta);
  const std::string type = fields.String("rope_type", "default");
  if (type == "proportional") {
    rope.rotary_factor = fields.Number("partial_rotary_factor", 0.0, 1.0, 1.0);
  } else if (type == "default") {
    rope.rotary_factor = fields.Number("partial_rotary_factor", 1.0, 1.0, 1.0);
  } else {
    fields.Fail("rope_type",
                fmt::format("is '{}'; Gemma 4 has default and proportional", type.substr(0, 32)));
  }
  if (fields.Find("factor") != nullptr && fields.Number("factor", 1.0, 1.0) != 1.0) return rope;
  return rope;
}

void ReadLayers(Fields& text, ModelConfig& config) {
  const int num_layers = text.Int("num_hidden_layers", 1, kMaxLayers);
  const json::value* types = text.Find("layer_types");
  if (types == nullptr || !types->is_array() ||
      types->get_array().size() != static_cast<size_t>(num_layers)) {
    text.Fail("layer_types", fmt::format("must list {} layers (num_hidden_layers)", num_layers));
    return;
  }
  const std::map<int, LayerOverride> overrides = ReadOverrides(text, num_layers);
  const int head_dim = text.Int("head_dim", 2, kMaxHeadDim);
  const int global_head_dim = text.Int("global_head_dim", 2, kMaxHeadDim, head_dim);
  const int kv_heads = text.Int("num_key_value_heads", 1, kMaxHeads);
  const bool k_eq_v = text.Bool("attention_k_eq_v", false);
  // Honoured only where attention_k_eq_v is true (GEMMA4.md 1).
  const int global_kv_heads =
      k_eq_v ? text.Int("num_global_key_value_heads", 1, kMaxHeads, kv_heads) : kv_heads;
  const int mlp_width = text.Int("intermediate_size", 1, kMaxWidth);
  const bool double_wide = text.Bool("use_double_wide_mlp", false);
  const int num_shared = text.Int("num_kv_shared_layers", 0, num_layers, 0);
  int last[2] = {-1, -1};
  for (int i = 0; i < num_layers; ++i) {
    const json::value& type = types->get_array()[static_cast<size_t>(i)];
    LayerConfig layer;
    if (type == "full_attention") {
      layer.kind = LayerKind::kFull;
    } else if (type != "sliding_attention") {
      text.Fail(
          "layer_types",
          fmt::format("has something else than full_attention or sliding_attention at {}", i));
      return;
    }
    const bool full = layer.kind == LayerKind::kFull;
    layer.head_dim = full ? global_head_dim : head_dim;
    layer.num_kv_heads = full ? global_kv_heads : kv_heads;
    if (const auto found = overrides.find(i); found != overrides.end()) {
      layer.head_dim = found->second.head_dim.value_or(layer.head_dim);
      layer.num_kv_heads = found->second.num_kv_heads.value_or(layer.num_kv_heads);
    }
    layer.k_eq_v = full && k_eq_v;
    layer.owns_kv = !config.is_drafter && i < num_layers - num_shared;
    layer.mlp_width =
        double_wide && !layer.owns_kv && !config.is_drafter ? 2 * mlp_width : mlp_width;
    int& donor = last[full ? 1 : 0];
    if (layer.owns_kv) donor = i;
    layer.kv_layer = config.is_drafter ? -1 : donor;
    if (!config.is_drafter && donor < 0) {
      text.Fail("num_kv_shared_layers",
                fmt::format("leaves layer {} without a layer of its kind to read from", i));
      return;
    }
    if (!layer.owns_kv && !config.is_drafter) {
      const LayerConfig& source = config.layers[static_cast<size_t>(donor)];
      if (source.head_dim != layer.head_dim || source.num_kv_heads != layer.num_kv_heads) {
        text.Fail("per_layer_config",
                  fmt::format("gives layer {} another KV shape than layer {} it reads", i, donor));
        return;
      }
    }
    if (layer.head_dim % 2 != 0 || config.num_heads % layer.num_kv_heads != 0) {
      text.Fail("num_attention_heads",
                fmt::format("{} is no multiple of {} KV heads in layer {}, or head_dim {} is odd",
                            config.num_heads, layer.num_kv_heads, i, layer.head_dim));
      return;
    }
    config.layers.push_back(layer);
  }
}

void ReadText(Fields& text, ModelConfig& config) {
  config.vocab_size = text.Int("vocab_size", 1, kMaxVocab);
  config.hidden = text.Int("hidden_size", 1, kMaxWidth);
  config.num_heads = text.Int("num_attention_heads", 1, kMaxHeads);
  config.window = text.Int("sliding_window", 1, kMaxPosition);
  config.max_position = text.Int("max_position_embeddings", 1, kMaxPosition);
  config.norm_eps = static_cast<float>(text.Number("rms_norm_eps", 1e-12, 1.0, 1e-6));
  config.logit_softcap = static_cast<float>(text.Number("final_logit_softcapping", 0.0, 1e6, 0.0));
  config.ple_width = text.Int("hidden_size_per_layer_input", 0, kMaxWidth, 0);
  config.ple_vocab =
      config.ple_width > 0 ? text.Int("vocab_size_per_layer_input", 1, kMaxVocab) : 0;
  config.bidirectional_images = text.String("use_bidirectional_attention", "") == "vision";
  config.sliding_rope = ReadRope(text, "sliding_attention", {10000.0, 1.0});
  config.full_rope = ReadRope(text, "full_attention", {1000000.0, 0.25});
  const std::string activation = text.String("hidden_activation", "gelu_pytorch_tanh");
  if (activation != "gelu_pytorch_tanh")
    text.Fail("hidden_activation",
              fmt::format("is '{}'; only gelu_pytorch_tanh is known", activation.substr(0, 32)));
  if (text.Bool("attention_bias", false))
    text.Fail("attention_bias", "is true; Gemma 4 has no biases");
  if (!text.Bool("tie_word_embeddings", true))
    text.Fail("tie_word_embeddings", "is false; Gemma 4's head is tied");
  if (text.Bool("enable_moe_block", false)) {
    config.moe.num_experts = text.Int("num_experts", 1, kMaxExperts);
    config.moe.top_k = text.Int("top_k_experts", 1, std::max(1, config.moe.num_experts));
    const char* width = text.Find("moe_intermediate_size") != nullptr ? "moe_intermediate_size"
                                                                      : "expert_intermediate_size";
    config.moe.width = text.Int(width, 1, kMaxWidth);
  }
  const std::vector<int> bos = text.IntList("bos_token_id", 0, kMaxVocab),
                         pad = text.IntList("pad_token_id", 0, kMaxVocab);
  if (!bos.empty()) config.bos_id = bos.front();
  if (!pad.empty()) config.pad_id = pad.front();
  config.eos_ids = text.IntList("eos_token_id", 0, kMaxVocab);
  ReadLayers(text, config);
}

void ReadTowers(Fields& root, ModelConfig& config) {
  if (const json::object* object = root.Object("vision_config")) {
    Fields v(*object, "vision_config.", root.error());
    VisionConfig vision;
    vision.hidden = v.Int("hidden_size", 1, kMaxWidth);
    vision.mlp_width = v.Int("intermediate_size", 1, kMaxWidth);
    vision.num_layers = v.Int("num_hidden_layers", 1, kMaxLayers);
    vision.num_heads = v.Int("num_attention_heads", 1, kMaxHeads);
    vision.head_dim = v.Int("head_dim", 1, kMaxHeadDim,
                            std::max(1, vision.hidden / std::max(1, vision.num_heads)));
    vision.patch_size = v.Int("patch_size", 1, 256);
    vision.position_embeddings = v.Int("position_embedding_size", 1, kMaxWidth);
    vision.clipped_linears = v.Bool("use_clipped_linears", false);
    vision.standardize = v.Bool("standardize", false);
    config.vision = vision;
  }
  if (const json::object* object = root.Object("audio_config")) {
    Fields a(*object, "audio_config.", root.error());
    AudioConfig audio;
    audio.hidden = a.Int("hidden_size", 1, kMaxWidth);
    audio.num_layers = a.Int("num_hidden_layers", 1, kMaxLayers);
    audio.num_heads = a.Int("num_attention_heads", 1, kMaxHeads);
    audio.clipped_linears = a.Bool("use_clipped_linears", true);
    audio.output_dims = a.Int("output_proj_dims", 1, kMaxWidth);
    audio.conv_kernel = a.Int("conv_kernel_size", 1, 1024);
    const std::vector<int> channels = a.IntList("subsampling_conv_channels", 1, kMaxWidth);
    if (channels.size() != 2)
      a.Fail("subsampling_conv_channels", "must hold two numbers");
    else
      std::copy(channels.begin(), channels.end(), audio.conv_channels);
    config.audio = audio;
  }
}

}  // namespace

float ModelConfig::embed_scale() const {
  return RoundToBf16(std::sqrt(static_cast<float>(hidden)));
}

int ModelConfig::donor(LayerKind kind) const {
  for (int i = num_layers() - 1; i >= 0; --i)
    if (layers[static_cast<size_t>(i)].kind == kind && layers[static_cast<size_t>(i)].owns_kv)
      return i;
  return -1;
}

Result<ModelConfig> ParseModelConfig(std::string_view content, std::string_view where) {
  auto parsed = ParseFileJson(content, where);
  if (!parsed.ok()) return parsed.error();
  const json::object* object = parsed.value().if_object();
  if (object == nullptr) return Error{fmt::format("{} is not a JSON object", where), "", ""};
  std::optional<Error> error;
  Fields root(*object, "", error);
  ModelConfig config;
  config.family = root.String("model_type", "");
  const auto finish = [&](Error e) {
    e.message = fmt::format("{}: {}", where, e.message);
    return e;
  };
  if (config.family.starts_with("gemma4_unified"))
    return Error{fmt::format("{}: Gemma 4 12B Unified ({}) has no towers and is not supported yet; "
                             "E2B, E4B, 26B-A4B and "
                             "31B are",
                             where, config.family.substr(0, 64)),
                 "model_type", ""};
  if (config.family != "gemma4" && config.family != "gemma4_assistant")
    return Error{fmt::format("{}: model_type '{}' is not gemma4 or gemma4_assistant; this program "
                             "serves Gemma 4 only",
                             where, config.family.substr(0, 64)),
                 "model_type", ""};
  config.is_drafter = config.family == "gemma4_assistant";
  const json::object* text_object = root.Object("text_config");
  if (text_object == nullptr) root.Fail("text_config", "is missing");
  if (error) return finish(*error);
  Fields text(*text_object, "text_config.", error);
  ReadText(text, config);
  if (config.is_drafter) {
    config.target_hidden = root.Int("backbone_hidden_size", 1, kMaxWidth);
    if (root.Bool("use_ordered_embeddings", false)) {
      config.centroids.num_centroids = root.Int("num_centroids", 1, std::max(1, config.vocab_size));
      config.centroids.top_k =
          root.Int("centroid_intermediate_top_k", 1, std::max(1, config.centroids.num_centroids));
      if (!error && config.vocab_size % config.centroids.num_centroids != 0)
        root.Fail("num_centroids", fmt::format("{} does not divide the vocabulary of {}",
                                               config.centroids.num_centroids, config.vocab_size));
    }
  } else {
    ReadTowers(root, config);
    for (const char* key : {"image_token_id", "video_token_id", "audio_token_id"})
      for (const int id : root.IntList(key, 0, kMaxVocab)) config.placeholder_ids.push_back(id);
  }
  for (const int id : root.IntList("eos_token_id", 0, kMaxVocab))
    if (std::find(config.eos_ids.begin(), config.eos_ids.end(), id) == config.eos_ids.end())
      config.eos_ids.push_back(id);
  if (error) return finish(*error);
  return config;
}

Result<ModelConfig> ReadModelConfig(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "config.json";
  auto content = ReadFile(path, kMaxConfigBytes);
  if (!content.ok()) return content.error();
  return ParseModelConfig(content.value(), path.string());
}

Status CheckDrafterFits(const ModelConfig& target, const ModelConfig& drafter) {
  const auto differ = [](const char* what, int want, int have) {
    return Error{fmt::format("this drafter does not fit the model: {} is {}, the model has {}",
                             what, have, want),
                 "", ""};
  };
  if (!drafter.is_drafter) return Error{"the draft model is not a gemma4_assistant", "", ""};
  if (target.is_drafter)
    return Error{"the model is itself a gemma4_assistant; give it as --draft-model", "", ""};
  if (target.hidden != drafter.target_hidden)
    return differ("backbone_hidden_size", target.hidden, drafter.target_hidden);
  if (target.vocab_size != drafter.vocab_size)
    return differ("vocab_size", target.vocab_size, drafter.vocab_size);
  if (target.window != drafter.window)
    return differ("sliding_window", target.window, drafter.window);
  for (const LayerConfig& layer : drafter.layers) {
    const int donor = target.donor(layer.kind);
    if (donor < 0) return Error{"this drafter has a kind of layer that the model has not", "", ""};
    const LayerConfig& source = target.layers[static_cast<size_t>(donor)];
    if (source.head_dim != layer.head_dim)
      return differ("head_dim", source.head_dim, layer.head_dim);
    if (source.num_kv_heads != layer.num_kv_heads)
      return differ("num_key_value_heads", source.num_kv_heads, layer.num_kv_heads);
  }
  return Ok{};
}

Result<GenerationConfig> ReadGenerationConfig(const std::filesystem::path& model_dir,
                                              int vocab_size) {
  GenerationConfig config;
  const std::filesystem::path path = model_dir / "generation_config.json";
  std::error_code code;
  if (!std::filesystem::exists(path, code)) return config;
  auto content = ReadFile(path, kMaxConfigBytes);
  if (!content.ok()) return content.error();
  auto parsed = ParseFileJson(content.value(), path.string());
  if (!parsed.ok()) return parsed.error();
  if (!parsed.value().is_object())
    return Error{fmt::format("{} is not a JSON object", path.string()), "", ""};
  std::optional<Error> error;
  Fields root(parsed.value().get_object(), "", error);
  config.temperature =
      static_cast<float>(root.Number("temperature", 0.0, 100.0, config.temperature));
  config.top_k = root.Int("top_k", 0, vocab_size, std::min(config.top_k, vocab_size));
  config.top_p = static_cast<float>(root.Number("top_p", 1e-6, 1.0, config.top_p));
  config.eos_ids = root.IntList("eos_token_id", 0, vocab_size - 1);
  config.suppress_ids = root.IntList("suppress_tokens", 0, vocab_size - 1);
  if (error) return Error{fmt::format("{}: {}", path.string(), error->message), error->param, ""};
  return config;
}

}  // namespace lapidary
