#include "checkpoints/mutations.h"

#include <cstring>

#include "io/json.h"

namespace lapidary {
namespace {

constexpr const char* kWeights = "model.safetensors";

uint64_t Below(Random& random, uint64_t limit) { return random() % limit; }

// The weights file taken apart.
struct Parts {
  explicit Parts(const FolderFiles& files) {
    const std::string& bytes = files.at(kWeights);
    uint64_t size = 0;
    std::memcpy(&size, bytes.data(), 8);
    header = json::parse(bytes.substr(8, size)).get_object();
    data = bytes.substr(8 + size);
  }
  json::object& Pick(Random& random, std::string& name) {
    auto member = header.begin() + 1 + static_cast<ptrdiff_t>(Below(random, header.size() - 1));
    name = member->key();
    return member->value().get_object();
  }
  void Store(FolderFiles& files) const {
    files[kWeights] = SafetensorsBytes(json::serialize(header), data);
  }
  json::object header;
  std::string data;
};

// Damages one entry of the header by `change` and refuses by the tensor's name.
Mutation Entry(std::string name, std::function<void(json::object&, Random&)> change) {
  return {std::move(name), [change = std::move(change)](FolderFiles& files, Random& random) {
            Parts parts(files);
            std::string tensor;
            change(parts.Pick(random, tensor), random);
            parts.Store(files);
            return Verdict{true, tensor};
          }};
}

// Damages the bytes of one file; whether it still loads is up to the damage.
Mutation Raw(std::string name, const char* file, std::function<void(std::string&, Random&)> change,
             bool must_refuse = false) {
  return {std::move(name),
          [file, must_refuse, change = std::move(change)](FolderFiles& files, Random& random) {
            change(files[file], random);
            return Verdict{must_refuse, must_refuse ? file : ""};
          }};
}

void SetLength(std::string& bytes, uint64_t length) { std::memcpy(bytes.data(), &length, 8); }

uint64_t HeaderLength(const std::string& bytes) {
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  return length;
}

void FlipBit(std::string& bytes, size_t begin, size_t end, Random& random) {
  const size_t at = begin + Below(random, end - begin);
  bytes[at] = static_cast<char>(bytes[at] ^ (1 << Below(random, 8)));
}

std::string Nested(size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

json::value OddValue(Random& random) {
  static const std::vector<json::value> values = {
      -1,    0,   1,   3,       1 << 20, 2147483647,    4294967296,     9223372036854775807,
      1e300, 0.5, "7", nullptr, true,    json::array{}, json::object{}, json::array{1, 2, 3}};
  return values[Below(random, values.size())];
}

// Sets any tensor's first value to these bits.
Mutation BadNumber(std::string name, uint16_t bits) {
  return {std::move(name), [bits](FolderFiles& files, Random& random) {
            Parts parts(files);
            std::string tensor;
            const json::object* entry = nullptr;
            do {
              entry = &parts.Pick(random, tensor);
            } while (entry->at("dtype") != "BF16" || tensor.find("tower") != tensor.npos ||
                     tensor.find("embed_") == tensor.npos ||
                     tensor.find("projection") != tensor.npos);
            const auto begin = entry->at("data_offsets").at(0).to_number<size_t>();
            const auto end = entry->at("data_offsets").at(1).to_number<size_t>();
            const size_t at = begin + Below(random, (end - begin) / 2) * 2;
            std::memcpy(parts.data.data() + at, &bits, 2);
            parts.Store(files);
            return Verdict{true, tensor};
          }};
}

void AddRawMutations(std::vector<Mutation>& all) {
  all.push_back(Raw(
      "cut the file", kWeights, [](std::string& b, Random& r) { b.resize(Below(r, b.size())); },
      true));
  all.push_back(Raw("empty file", kWeights, [](std::string& b, Random&) { b.clear(); }, true));
  all.push_back(Raw(
      "bytes after the end", kWeights,
      [](std::string& b, Random& r) { b.append(1 + Below(r, 5000), 'x'); }, true));
  all.push_back(Raw("flip a bit of the header", kWeights,
                    [](std::string& b, Random& r) { FlipBit(b, 8, 8 + HeaderLength(b), r); }));
  all.push_back(Raw(
      "flip a bit of the length", kWeights, [](std::string& b, Random& r) { FlipBit(b, 0, 8, r); },
      true));
  all.push_back(Raw("random length", kWeights,
                    [](std::string& b, Random& r) { SetLength(b, r() >> Below(r, 60)); }));
  all.push_back(Raw(
      "largest length", kWeights,
      [](std::string& b, Random& r) { SetLength(b, UINT64_MAX - Below(r, 16)); }, true));
  all.push_back(Raw(
      "length off by a little", kWeights,
      [](std::string& b, Random& r) { SetLength(b, HeaderLength(b) - 4 + Below(r, 4)); }, true));
  all.push_back(Raw("random bytes in the header", kWeights, [](std::string& b, Random& r) {
    for (int i = 0; i < 8; ++i) b[8 + Below(r, HeaderLength(b))] = static_cast<char>(r());
  }));
  all.push_back(Raw(
      "deep header", kWeights,
      [](std::string& b, Random& r) {
        b = SafetensorsBytes("{\"a\":" + Nested(65 + Below(r, 5000)) + "}", "");
      },
      true));
  all.push_back(Raw(
      "header is no object", kWeights,
      [](std::string& b, Random& r) {
        const char* const texts[] = {"[]", "1", "null", "\"a\"", "{}{}", "{\"a\":{}}", "{\"a\":1}"};
        b = SafetensorsBytes(texts[Below(r, 7)], "");
      },
      true));
  all.push_back(Raw(
      "header is not UTF-8", kWeights,
      [](std::string& b, Random& r) {
        b.insert(10 + Below(r, 1), 1, '\xff');
        SetLength(b, HeaderLength(b) + 1);
      },
      true));
  all.push_back(Raw(
      "cut the config", "config.json",
      [](std::string& b, Random& r) { b.resize(Below(r, b.size())); }, true));
  all.push_back(Raw("flip a bit of the config", "config.json",
                    [](std::string& b, Random& r) { FlipBit(b, 0, b.size(), r); }));
  all.push_back(Raw(
      "deep config", "config.json",
      [](std::string& b, Random& r) {
        b = "{\"text_config\":" + Nested(65 + Below(r, 5000)) + "}";
      },
      true));
}

void AddEntryMutations(std::vector<Mutation>& all) {
  all.push_back(Entry("other dtype", [](json::object& e, Random& r) {
    const char* const names[] = {"F32", "F16", "I8", "bf16", "", "F8_E4M3", "BOOL"};
    e["dtype"] = names[Below(r, 7)];
  }));
  all.push_back(Entry("same width, other dtype", [](json::object& e, Random&) {
    e["dtype"] = e["dtype"] == "I64" ? "F64" : "F16";
  }));
  all.push_back(Entry("dtype is no string", [](json::object& e, Random& r) {
    e["dtype"] = json::value(static_cast<int64_t>(Below(r, 9)));
  }));
  all.push_back(Entry("one more dimension", [](json::object& e, Random& r) {
    e["shape"].as_array().push_back(static_cast<int64_t>(2 + Below(r, 3)));
  }));
  all.push_back(Entry("many dimensions of one",
                      [](json::object& e, Random&) { e["shape"] = json::array(64, 1); }));
  all.push_back(Entry("huge dimensions", [](json::object& e, Random& r) {
    e["shape"] = json::array{int64_t{1} << (31 + Below(r, 32)), int64_t{1} << 33};
  }));
  all.push_back(Entry("negative dimension",
                      [](json::object& e, Random&) { e["shape"] = json::array{-1, -16}; }));
  all.push_back(Entry("dimension that is no whole number", [](json::object& e, Random& r) {
    const json::value values[] = {1.5, "16", nullptr, true, json::array{}};
    e["shape"] = json::array{values[Below(r, 5)]};
  }));
  all.push_back(Entry("offsets the wrong way round", [](json::object& e, Random&) {
    json::array& offsets = e["data_offsets"].as_array();
    std::swap(offsets[0], offsets[1]);
  }));
  all.push_back(Entry("huge offsets", [](json::object& e, Random& r) {
    const int64_t begin = INT64_MAX - static_cast<int64_t>(Below(r, 100)) - 100;
    e["data_offsets"] = json::array{begin, begin + 32};
  }));
  all.push_back(Entry("offsets beyond int64", [](json::object& e, Random&) {
    e["data_offsets"] = json::array{UINT64_MAX - 1, UINT64_MAX};
  }));
  all.push_back(Entry("negative offset",
                      [](json::object& e, Random&) { e["data_offsets"].as_array()[0] = -2; }));
  all.push_back(Entry("three offsets",
                      [](json::object& e, Random&) { e["data_offsets"].as_array().push_back(0); }));
  all.push_back(Entry("a field is missing", [](json::object& e, Random& r) {
    const char* const names[] = {"dtype", "shape", "data_offsets"};
    e.erase(names[Below(r, 3)]);
  }));
}

// Puts a second value of a key in front of the first: a parser that keeps the last would not
// notice.
void AddTwiceMutations(std::vector<Mutation>& all) {
  all.push_back({"a tensor's key twice", [](FolderFiles& files, Random& random) {
                   Parts parts(files);
                   std::string name;
                   const std::string entry = json::serialize(parts.Pick(random, name));
                   const std::string text = json::serialize(parts.header);
                   // The same name, its first letter plain or as an escape.
                   std::string key = name;
                   if (Below(random, 2) == 0) key.replace(0, 1, name[0] == 'm' ? "\\u006d" : "p");
                   files[kWeights] = SafetensorsBytes(
                       "{\"" + key + "\":" + entry + "," + text.substr(1), parts.data);
                   return Verdict{true, name};
                 }});
  all.push_back({"a field of a tensor twice", [](FolderFiles& files, Random& random) {
                   const Parts parts(files);
                   std::string text = json::serialize(parts.header);
                   const size_t at = text.find("{\"dtype\"", Below(random, text.size() / 2));
                   text.insert(at + 1, "\"dtype\":\"BF16\",");
                   files[kWeights] = SafetensorsBytes(text, parts.data);
                   return Verdict{true, "dtype"};
                 }});
  all.push_back({"a key of the config twice", [](FolderFiles& files, Random& random) {
                   const char* const additions[][2] = {
                       {"\"model_type\"", "\"model_type\":\"gemma4\","},
                       {"\"vocab_size\"", "\"vocab_size\":64,"},
                       {"\"rope_type\"", "\"rope_type\":\"yarn\","}};
                   const auto& [key, addition] = additions[Below(random, 3)];
                   std::string& text = files["config.json"];
                   text.insert(text.find(key), addition);
                   return Verdict{true, std::string(key).substr(1, std::strlen(key) - 2)};
                 }});
}

void AddTensorMutations(std::vector<Mutation>& all) {
  all.push_back({"overlapping tensors", [](FolderFiles& files, Random& random) {
                   Parts parts(files);
                   std::string a, b;
                   json::object& first = parts.Pick(random, a);
                   json::object* second = nullptr;
                   do {
                     second = &parts.Pick(random, b);
                   } while (a == b);
                   (*second)["data_offsets"] = first["data_offsets"];
                   (*second)["shape"] = first["shape"];
                   (*second)["dtype"] = first["dtype"];
                   parts.Store(files);
                   return Verdict{true, ""};
                 }});
  all.push_back({"a tensor is missing", [](FolderFiles& files, Random& random) {
                   std::vector<RawTensor> tensors = TinyTensors(files.at("config.json"));
                   const size_t at = Below(random, tensors.size());
                   const std::string name = tensors[at].name;
                   tensors.erase(tensors.begin() + static_cast<ptrdiff_t>(at));
                   files[kWeights] = SafetensorsBytes(tensors);
                   // K and V of layers that share them may be absent: layers 2 and 3 of edge, wide.
                   const bool shared =
                       files.at("config.json").find("kv_shared") != std::string::npos &&
                       (name.find("layers.2.self_attn") != name.npos ||
                        name.find("layers.3.self_attn") != name.npos);
                   return Verdict{!shared, shared ? "" : name};
                 }});
  all.push_back({"a tensor too many", [](FolderFiles& files, Random& random) {
                   std::vector<RawTensor> tensors = TinyTensors(files.at("config.json"));
                   tensors.insert(tensors.begin() + static_cast<ptrdiff_t>(Below(random, 20)),
                                  {"model.language_model.lm_head.weight", "BF16", {2}, "abcd"});
                   files[kWeights] = SafetensorsBytes(tensors);
                   return Verdict{true, "lm_head"};
                 }});
  all.push_back({"a tensor of another name", [](FolderFiles& files, Random& random) {
                   std::vector<RawTensor> tensors = TinyTensors(files.at("config.json"));
                   RawTensor& tensor = tensors[Below(random, tensors.size())];
                   tensor.name += Below(random, 2) == 0 ? "_" : std::string(100000, 'n');
                   files[kWeights] = SafetensorsBytes(tensors);
                   return Verdict{true, tensor.name.substr(0, 20)};
                 }});
  all.push_back({"another shape, same bytes", [](FolderFiles& files, Random& random) {
                   std::vector<RawTensor> tensors = TinyTensors(files.at("config.json"));
                   RawTensor* tensor = nullptr;
                   do {
                     tensor = &tensors[Below(random, tensors.size())];
                   } while (tensor->shape.size() < 2 || tensor->shape[0] == tensor->shape[1]);
                   std::swap(tensor->shape[0], tensor->shape[1]);
                   files[kWeights] = SafetensorsBytes(tensors);
                   return Verdict{true, tensor->name};
                 }});
  all.push_back({"a tensor that occurs twice", [](FolderFiles& files, Random& random) {
                   std::vector<RawTensor> tensors = TinyTensors(files.at("config.json"));
                   RawTensor copy = tensors[Below(random, tensors.size())];
                   if (!copy.name.starts_with("model.")) copy = tensors[0];
                   copy.name.erase(0, 6);
                   tensors.push_back(copy);
                   files[kWeights] = SafetensorsBytes(tensors);
                   return Verdict{true, copy.name};
                 }});
  all.push_back(BadNumber("NaN", 0x7fc1));
  all.push_back(BadNumber("infinity", 0xff80));
  all.push_back({"token_ordering is no permutation", [](FolderFiles& files, Random& random) {
                   Parts parts(files);
                   const json::value* entry =
                       parts.header.if_contains("masked_embedding.token_ordering");
                   if (entry == nullptr) return Verdict{};
                   const auto begin = entry->at("data_offsets").at(0).to_number<size_t>();
                   const int64_t values[] = {-1, 32, 0, INT64_MAX, INT64_MIN};
                   std::memcpy(parts.data.data() + begin + 8 * (1 + Below(random, 31)),
                               &values[Below(random, 5)], 8);
                   parts.Store(files);
                   return Verdict{true, "masked_embedding.token_ordering"};
                 }});
}

void AddConfigMutations(std::vector<Mutation>& all) {
  const auto change = [](std::string name, auto apply) {
    return Mutation{std::move(name), [apply](FolderFiles& files, Random& random) {
                      json::object root = json::parse(files["config.json"]).get_object();
                      Verdict verdict = apply(root, random);
                      files["config.json"] = json::serialize(root);
                      return verdict;
                    }};
  };
  const auto pick = [](json::object& root, Random& random) -> json::value& {
    json::object* object = &root;
    if (Below(random, 4) != 0) object = &root["text_config"].as_object();
    if (root.contains("vision_config") && Below(random, 4) == 0)
      object = &root["vision_config"].as_object();
    return (object->begin() + static_cast<ptrdiff_t>(Below(random, object->size())))->value();
  };
  all.push_back(change("an odd value in the config", [pick](json::object& root, Random& random) {
    pick(root, random) = OddValue(random);
    return Verdict{};
  }));
  all.push_back(change("a number off by one", [pick](json::object& root, Random& random) {
    json::value* value = nullptr;
    do {
      value = &pick(root, random);
    } while (!value->is_int64());
    *value = value->get_int64() + (Below(random, 2) == 0 ? 1 : -1);
    return Verdict{};
  }));
  all.push_back(change("a field of the config is missing", [](json::object& root, Random& random) {
    const char* const names[] = {"vocab_size",  "hidden_size",         "num_hidden_layers",
                                 "layer_types", "num_attention_heads", "num_key_value_heads",
                                 "head_dim",    "intermediate_size",   "sliding_window"};
    const std::string name = names[Below(random, 9)];
    root["text_config"].as_object().erase(name);
    return Verdict{true, name};
  }));
  all.push_back(change("a layer too many", [](json::object& root, Random&) {
    root["text_config"].as_object()["layer_types"].as_array().push_back("full_attention");
    return Verdict{true, "layer_types"};
  }));
  all.push_back(change("unknown layer type", [](json::object& root, Random& random) {
    json::array& types = root["text_config"].as_object()["layer_types"].as_array();
    types[Below(random, types.size())] = "chunked_attention";
    return Verdict{true, "layer_types"};
  }));
  all.push_back(change("unknown rope type", [](json::object& root, Random&) {
    root["text_config"]
        .as_object()["rope_parameters"]
        .as_object()["full_attention"]
        .as_object()["rope_type"] = "yarn";
    return Verdict{true, "rope_type"};
  }));
  all.push_back(change("unknown model type", [](json::object& root, Random& random) {
    const char* const names[] = {"gemma3", "", "llama", "gemma4_unified", "gemma4x"};
    root["model_type"] = names[Below(random, 5)];
    return Verdict{true, "config.json"};
  }));
}

void AddIndexMutations(std::vector<Mutation>& all) {
  const auto shards = [](FolderFiles& files) {
    const std::string config = files.at("config.json");
    const char* family = config.find("assistant") != std::string::npos     ? "assistant"
                         : config.find("num_experts") != std::string::npos ? "moe"
                                                                           : "dense";
    files = TinyShardedCheckpoint(family, 3);
  };
  static constexpr const char* kIndex = "model.safetensors.index.json";
  all.push_back({"a shard is missing", [shards](FolderFiles& files, Random& random) {
                   shards(files);
                   const std::string name =
                       "model-" + std::to_string(Below(random, 3)) + ".safetensors";
                   files.erase(name);
                   return Verdict{true, name};
                 }});
  all.push_back({"an index that leaves the folder", [shards](FolderFiles& files, Random& random) {
                   shards(files);
                   json::value index = json::parse(files[kIndex]);
                   json::object& map = index.as_object()["weight_map"].as_object();
                   const json::value names[] = {"../model.safetensors", "/etc/passwd", 7, "", ".."};
                   auto member = map.begin() + static_cast<ptrdiff_t>(Below(random, map.size()));
                   member->value() = names[Below(random, 5)];
                   files[kIndex] = json::serialize(index);
                   return Verdict{true, std::string(member->key())};
                 }});
  all.push_back({"an index that misplaces a tensor", [shards](FolderFiles& files, Random& random) {
                   shards(files);
                   json::value index = json::parse(files[kIndex]);
                   json::object& map = index.as_object()["weight_map"].as_object();
                   auto member = map.begin() + static_cast<ptrdiff_t>(Below(random, map.size()));
                   const bool first = member->value() == "model-0.safetensors";
                   member->value() = first ? "model-1.safetensors" : "model-0.safetensors";
                   files[kIndex] = json::serialize(index);
                   return Verdict{true, std::string(member->key())};
                 }});
  all.push_back({"a damaged index", [shards](FolderFiles& files, Random& random) {
                   shards(files);
                   files[kIndex].resize(Below(random, files[kIndex].size()));
                   return Verdict{true, kIndex};
                 }});
}

}  // namespace

const std::vector<Mutation>& Mutations() {
  static const std::vector<Mutation> mutations = [] {
    std::vector<Mutation> all;
    AddRawMutations(all);
    AddEntryMutations(all);
    AddTwiceMutations(all);
    AddTensorMutations(all);
    AddConfigMutations(all);
    AddIndexMutations(all);
    return all;
  }();
  return mutations;
}

}  // namespace lapidary
