#include "checkpoints/tiny_checkpoint.h"

#include <stdlib.h>
#include <boost/json/value_from.hpp>

#include <cstring>
#include <fstream>

#include "io/json.h"
#include "model/tensor_spec.h"

namespace lapidary {
namespace {

json::object Common(int hidden, int layers, bool published, bool k_eq_v) {
  json::object text = {{"vocab_size", 32},
                       {"hidden_size", hidden},
                       {"intermediate_size", 12},
                       {"num_hidden_layers", layers},
                       {"num_attention_heads", 4},
                       {"num_key_value_heads", 2},
                       {"head_dim", 4},
                       {"sliding_window", 8},
                       {"max_position_embeddings", 64},
                       {"attention_k_eq_v", k_eq_v},
                       {"final_logit_softcapping", 30.0},
                       {"rms_norm_eps", 1e-6},
                       {"eos_token_id", 1},
                       {"bos_token_id", 2},
                       {"pad_token_id", 0}};
  text["rope_parameters"] = json::parse(R"({"sliding_attention": {"rope_type": "default",
      "rope_theta": 10000.0}, "full_attention": {"rope_type": "proportional",
      "partial_rotary_factor": 0.25, "rope_theta": 1000000.0}})");
  json::array types;
  json::object overrides;
  for (int i = 0; i < layers; ++i) {
    const bool full = i % 2 == 1;
    types.push_back(full ? "full_attention" : "sliding_attention");
    if (!full) continue;
    json::object override = {{"head_dim", 8}};
    if (k_eq_v) override["num_key_value_heads"] = 1;
    overrides[std::to_string(i)] = override;
  }
  text["layer_types"] = types;
  if (published) {
    text["global_head_dim"] = 8;
    text["num_global_key_value_heads"] = k_eq_v ? json::value(1) : json::value(nullptr);
  } else {
    text["per_layer_config"] = overrides;
  }
  return text;
}

json::value Vision() {
  return json::parse(R"({"hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1,
      "num_attention_heads": 2, "head_dim": 4, "patch_size": 2, "position_embedding_size": 4,
      "use_clipped_linears": true, "standardize": false})");
}

json::value Audio() {
  return json::parse(R"({"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
      "output_proj_dims": 4, "conv_kernel_size": 3, "subsampling_conv_channels": [2, 2],
      "use_clipped_linears": true})");
}

std::string TensorData(const TensorSpec& spec) {
  std::string data(spec.bytes(), '\0');
  if (spec.dtype == "I64") {
    for (int64_t i = 0; i < spec.shape[0]; ++i) {
      const int64_t id = i * 7 % spec.shape[0];  // the vocabulary is no multiple of 7
      std::memcpy(data.data() + i * 8, &id, 8);
    }
    return data;
  }
  // Numbers of both signs near one half.
  for (size_t i = 0; i + 1 < data.size(); i += 2) {
    const auto bits = static_cast<uint16_t>(0x3f00 + i * 37 % 64 + (i % 4 == 0 ? 0x8000 : 0));
    std::memcpy(data.data() + i, &bits, 2);
  }
  return data;
}

}  // namespace

std::string TinyConfig(const std::string& family) {
  json::object root;
  if (family == "assistant") {
    json::object text = Common(8, 2, false, false);
    text["num_kv_shared_layers"] = 2;
    text["final_logit_softcapping"] = nullptr;
    root = {{"model_type", "gemma4_assistant"}, {"backbone_hidden_size", 16},
            {"use_ordered_embeddings", true},   {"num_centroids", 4},
            {"centroid_intermediate_top_k", 2}, {"text_config", text}};
    return json::serialize(root);
  }
  const bool small = family == "edge" || family == "wide";
  json::object text = Common(16, 4, family == "edge" || family == "dense", !small);
  if (small) {
    text["hidden_size_per_layer_input"] = 4;
    text["vocab_size_per_layer_input"] = 32;
    text["num_kv_shared_layers"] = 2;
    text["use_double_wide_mlp"] = family == "wide";
    root["audio_config"] = Audio();
  }
  if (family == "moe") {
    text["enable_moe_block"] = true;
    text["num_experts"] = 4;
    text["top_k_experts"] = 2;
    text["moe_intermediate_size"] = 6;
  }
  root["model_type"] = "gemma4";
  root["eos_token_id"] = json::array{1, 3};
  root["vision_config"] = Vision();
  root["text_config"] = text;
  return json::serialize(root);
}

std::vector<RawTensor> TinyTensors(const std::string& config) {
  const ModelConfig parsed = ParseModelConfig(config, "tiny").value();
  std::vector<RawTensor> tensors;
  for (const TensorSpec& spec : TensorSpecs(parsed))
    tensors.push_back({spec.name, std::string(spec.dtype), spec.shape, TensorData(spec)});
  return tensors;
}

std::string SafetensorsBytes(const std::vector<RawTensor>& tensors) {
  json::object header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const RawTensor& tensor : tensors) {
    header[tensor.name] = {
        {"dtype", tensor.dtype},
        {"shape", json::value_from(tensor.shape)},
        {"data_offsets", json::array{data.size(), data.size() + tensor.data.size()}}};
    data += tensor.data;
  }
  std::string text = json::serialize(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return SafetensorsBytes(text, data);
}

std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &size, 8);
  return bytes + header + data;
}

FolderFiles TinyCheckpoint(const std::string& family) {
  const std::string config = TinyConfig(family);
  return {{"config.json", config}, {"model.safetensors", SafetensorsBytes(TinyTensors(config))}};
}

FolderFiles TinyShardedCheckpoint(const std::string& family, size_t num_shards) {
  const std::string config = TinyConfig(family);
  const std::vector<RawTensor> all = TinyTensors(config);
  FolderFiles files = {{"config.json", config}};
  json::object weight_map;
  for (size_t shard = 0; shard < num_shards; ++shard) {
    const std::string name = "model-" + std::to_string(shard) + ".safetensors";
    std::vector<RawTensor> part;
    for (size_t i = shard; i < all.size(); i += num_shards) {
      part.push_back(all[i]);
      weight_map[all[i].name] = name;
    }
    files[name] = SafetensorsBytes(part);
  }
  files["model.safetensors.index.json"] = json::serialize(json::object{{"weight_map", weight_map}});
  return files;
}

ScratchFolder::ScratchFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "lapidary-XXXXXX").string();
  CHECK(mkdtemp(name.data()) != nullptr, "{}", name);
  path_ = name;
}

ScratchFolder::~ScratchFolder() {
  std::error_code code;
  std::filesystem::remove_all(path_, code);
}

std::filesystem::path ScratchFolder::Write(const std::string& name,
                                           const FolderFiles& files) const {
  const std::filesystem::path folder = path_ / name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  for (const auto& [file, bytes] : files) std::ofstream(folder / file, std::ios::binary) << bytes;
  return folder;
}

}  // namespace lapidary
