#include "small_model.h"

#include <fstream>
#include <iterator>
#include <string>

#include "io/json.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

json::object ReadObject(const fs::path& path) {
  std::ifstream file(path);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return OrThrow(ParseJson(text, path.string())).as_object();
}

json::array LayerTypes(int num_layers, int period) {
  json::array types;
  for (int i = 0; i < num_layers; ++i)
    types.emplace_back((i + 1) % period == 0 ? "full_attention" : "sliding_attention");
  return types;
}

// The published one without what is not text, and with other sizes.
void WriteConfig(const fs::path& published, const fs::path& folder, const json::object& sizes) {
  json::object config = ReadObject(published / "config.json");
  for (const char* key :
       {"vision_config", "audio_config", "image_token_id", "audio_token_id", "video_token_id"})
    config.erase(key);
  json::object& text = config.contains("text_config") ? config["text_config"].as_object() : config;
  for (const auto& [key, value] : sizes) text[key] = value;
  fs::create_directories(folder);
  std::ofstream(folder / "config.json") << json::serialize(config);
}

}  // namespace

fs::path WriteSmallModel(const fs::path& configs, const SmallModel& model, const fs::path& out) {
  const std::string name = model.name, drafter = name + "-assistant";
  WriteConfig(configs / name, out / name,
              {{"num_hidden_layers", model.num_layers},
               {"layer_types", LayerTypes(model.num_layers, model.period)},
               {"num_kv_shared_layers", model.num_shared},
               {"vocab_size", kSmallVocab},
               {"vocab_size_per_layer_input", kSmallVocab}});
  WriteConfig(configs / drafter, out / drafter, {{"vocab_size", kSmallVocab}});
  return out / name;
}

}  // namespace lapidary
