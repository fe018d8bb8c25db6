#include "model/loader.h"

#include <algorithm>
#include <set>

#include "io/json.h"
#include "io/safetensors.h"
#include "io/sigbus_guard.h"
#include "model/bind_weights.h"
#include "model/tensor_spec.h"

namespace lapidary {
namespace {

constexpr uint64_t kMaxIndexBytes = 64 << 20;
constexpr size_t kMaxShards = 4096;

struct FileCheckpoint : Checkpoint {
  std::vector<Safetensors> shards;
  std::vector<std::vector<char>> copies;  // tensors whose bytes lie misaligned in their file
  ~FileCheckpoint() override {
    for (const Safetensors& shard : shards) UnregisterWeightMap(shard.file().bytes());
  }
};

// Where a tensor of the checkpoint lies.
struct Found {
  const Safetensors* shard = nullptr;
  const TensorEntry* entry = nullptr;
};

// Other engines and re-exports leave out `model.` or swap it behind `language_model` (GEMMA4.md
// 10).
std::string PublishedName(const std::string& name, bool is_drafter) {
  if (name.starts_with("language_model.model.")) return "model.language_model." + name.substr(21);
  if (is_drafter) {
    for (const char* prefix : {"embed_tokens.", "norm.", "layers."})
      if (name.starts_with(prefix)) return "model." + name;
    return name;
  }
  return name.starts_with("model.") ? name : "model." + name;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// The shard files by name, in order, from the index or the single file.
Result<std::vector<std::filesystem::path>> ShardPaths(const std::filesystem::path& dir) {
  std::error_code code;
  const std::filesystem::path single = dir / "model.safetensors",
                              index = dir / "model.safetensors.index.json";
  if (std::filesystem::exists(single, code)) return std::vector{single};
  if (!std::filesystem::exists(index, code))
    return Error{fmt::format("{} holds neither model.safetensors nor model.safetensors.index.json",
                             dir.string()),
                 "", ""};
  auto content = ReadFile(index, kMaxIndexBytes);
  if (!content.ok()) return content.error();
  auto parsed = ParseJson(content.value(), index.string());
  if (!parsed.ok()) return parsed.error();
  const json::object* root = parsed.value().if_object();
  const json::value* map = root == nullptr ? nullptr : root->if_contains("weight_map");
  if (map == nullptr || !map->is_object())
    return Error{fmt::format("{} has no weight_map", index.string()), "weight_map", ""};
  std::set<std::string> names;
  for (const auto& member : map->get_object()) {
    const json::string* file = member.value().if_string();
    // A plain file name: an index must not reach outside its folder.
    if (file == nullptr || file->empty() || file->find('/') != json::string::npos ||
        *file == ".." || *file == ".")
      return Error{
          fmt::format("{}: weight_map names a file that is not a plain file name", index.string()),
          "weight_map", ""};
    names.insert(std::string(*file));
  }
  if (names.empty() || names.size() > kMaxShards)
    return Error{fmt::format("{} names {} files, expected 1 to {}", index.string(), names.size(),
                             kMaxShards),
                 "weight_map", ""};
  std::vector<std::filesystem::path> paths;
  for (const std::string& name : names) paths.push_back(dir / name);
  return paths;
}

Result<std::map<std::string, Found>> CollectTensors(const std::vector<Safetensors>& shards,
                                                    bool is_drafter) {
  std::map<std::string, Found> found;
  for (const Safetensors& shard : shards)
    for (const auto& [name, entry] : shard.tensors())
      if (!found.emplace(PublishedName(name, is_drafter), Found{&shard, &entry}).second)
        return Error{fmt::format("{}: tensor '{}' occurs twice in this checkpoint",
                                 shard.file().path(), name.substr(0, 200)),
                     name.substr(0, 200), ""};
  return found;
}

// Every tensor of the spec is there with its shape and dtype, and no other.
Status CheckTensors(const std::vector<TensorSpec>& specs, const std::map<std::string, Found>& found,
                    const std::filesystem::path& dir) {
  std::set<std::string_view> known;
  for (const TensorSpec& spec : specs) {
    known.insert(spec.name);
    const auto place = found.find(spec.name);
    if (place == found.end()) {
      if (spec.use == TensorUse::kIgnored) continue;
      return Error{fmt::format("{}: tensor '{}' {} is missing; the config asks for it",
                               dir.string(), spec.name, ShapeText(spec.shape)),
                   spec.name, ""};
    }
    const TensorEntry& entry = *place->second.entry;
    const std::string& file = place->second.shard->file().path();
    const bool shape_ok =
        entry.shape == spec.shape || (spec.scalar_or_one && entry.shape == std::vector<int64_t>{1});
    if (!shape_ok)
      return Error{fmt::format("{}: tensor '{}' has shape {}, the config asks for {}", file,
                               spec.name, ShapeText(entry.shape), ShapeText(spec.shape)),
                   spec.name, ""};
    if (entry.dtype != spec.dtype)
      return Error{fmt::format("{}: tensor '{}' has dtype {}, expected {}", file, spec.name,
                               entry.dtype, spec.dtype),
                   spec.name, ""};
  }
  for (const auto& [name, place] : found)
    if (!known.contains(name))
      return Error{fmt::format("{}: tensor '{}' is not one that a model of this config has",
                               place.shard->file().path(), name.substr(0, 200)),
                   name.substr(0, 200), ""};
  return Ok{};
}

// The tensor over its bytes; copied if they lie at an odd place for their type.
Tensor Bind(const TensorSpec& spec, const Found& found, FileCheckpoint& checkpoint) {
  const std::span<const std::byte> bytes = found.shard->bytes(*found.entry);
  Tensor tensor;
  tensor.dtype = std::string_view(spec.dtype) == "I64" ? DType::kI64 : DType::kBf16;
  tensor.rank = static_cast<int>(spec.shape.size());
  for (size_t i = 0; i < spec.shape.size(); ++i) tensor.shape[i] = spec.shape[i];
  tensor.row_stride = tensor.cols();
  // Read-only by contract: nothing in `ops` writes to a weight, and the pages are mapped without
  // write permission.
  tensor.data = const_cast<std::byte*>(bytes.data());
  if (reinterpret_cast<uintptr_t>(bytes.data()) % static_cast<size_t>(SizeOf(tensor.dtype)) != 0) {
    const char* source = reinterpret_cast<const char*>(bytes.data());
    checkpoint.copies.emplace_back(source, source + bytes.size());
    tensor.data = checkpoint.copies.back().data();
  }
  return tensor;
}

Status CheckPermutation(const Tensor& ordering, const std::string& file) {
  std::vector<bool> seen(static_cast<size_t>(ordering.rows()));
  for (int64_t i = 0; i < ordering.rows(); ++i) {
    const int64_t id = ordering.i64()[i];
    if (id < 0 || id >= ordering.rows() || seen[static_cast<size_t>(id)])
      return Error{
          fmt::format(
              "{}: tensor 'masked_embedding.token_ordering' is not a permutation: entry {} is {}",
              file, i, id),
          "masked_embedding.token_ordering", ""};
    seen[static_cast<size_t>(id)] = true;
  }
  return Ok{};
}

// Reads every byte once: finds a cut file now instead of at the first request, and names weights
// that are not numbers.
Status TouchTensor(const TensorSpec& spec, const Found& found) {
  if (std::string_view(spec.dtype) != "BF16") return Ok{};
  const std::span<const std::byte> bytes = found.shard->bytes(*found.entry);
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
    const auto high = static_cast<unsigned>(bytes[i + 1]), low = static_cast<unsigned>(bytes[i]);
    if ((high & 0x7f) == 0x7f && (low & 0x80) != 0)
      return Error{fmt::format("{}: tensor '{}' holds a value that is not finite at element {}",
                               found.shard->file().path(), spec.name, i / 2),
                   spec.name, ""};
  }
  return Ok{};
}

Status TouchAll(const std::vector<TensorSpec>& specs, const std::map<std::string, Found>& found,
                uint64_t total, const LoadOptions& options) {
  uint64_t done = 0;
  for (const TensorSpec& spec : specs) {
    if (spec.use != TensorUse::kText) continue;
    const Found& place = found.at(spec.name);
    const MappedFile& file = place.shard->file();
    // A SIGBUS here means that the file was cut after it was mapped.
    Status status = Ok{};
    if (!WithSigbusGuard(file.bytes(), [&] { status = TouchTensor(spec, place); }))
      return Error{fmt::format("{} became shorter while it was read", file.path()), "", ""};
    if (!status.ok()) return status;
    done += place.entry->bytes;
    if (options.progress) options.progress(done, total);
  }
  return Ok{};
}

}  // namespace

uint64_t WeightBytes(const ModelConfig& config) {
  uint64_t bytes = 0;
  for (const TensorSpec& spec : TensorSpecs(config))
    if (spec.use == TensorUse::kText)
      bytes += static_cast<uint64_t>(spec.num_elements()) *
               (std::string_view(spec.dtype) == "I64" ? 8 : 2);
  return bytes;
}

Result<std::unique_ptr<Checkpoint>> LoadCheckpoint(const std::filesystem::path& model_dir,
                                                   const LoadOptions& options) {
  auto config = ReadModelConfig(model_dir);
  if (!config.ok()) return config.error();
  auto checkpoint = std::make_unique<FileCheckpoint>();
  checkpoint->config = std::move(config).value();
  auto paths = ShardPaths(model_dir);
  if (!paths.ok()) return paths.error();
  for (const std::filesystem::path& path : paths.value()) {
    auto shard = Safetensors::Open(path);
    if (!shard.ok()) return shard.error();
    checkpoint->shards.push_back(std::move(shard).value());
  }
  auto found = CollectTensors(checkpoint->shards, checkpoint->config.is_drafter);
  if (!found.ok()) return found.error();
  const std::vector<TensorSpec> specs = TensorSpecs(checkpoint->config);
  if (Status status = CheckTensors(specs, found.value(), model_dir); !status.ok())
    return status.error();
  checkpoint->weight_bytes = WeightBytes(checkpoint->config);
  if (options.touch_all_bytes)
    if (Status status = TouchAll(specs, found.value(), checkpoint->weight_bytes, options);
        !status.ok())
      return status.error();
  std::map<std::string, Tensor> tensors;
  Status status = Ok{};
  const bool readable = WithSigbusGuard({}, [&] {
    for (const TensorSpec& spec : specs)
      if (spec.use == TensorUse::kText)
        tensors[spec.name] = Bind(spec, found.value().at(spec.name), *checkpoint);
    checkpoint->weights = BindWeights(checkpoint->config, tensors);
    const Tensor& ordering = checkpoint->weights.token_ordering;
    if (!ordering.empty()) status = CheckPermutation(ordering, model_dir.string());
  });
  if (!status.ok()) return status.error();
  for (const Safetensors& shard : checkpoint->shards) {
    auto size = shard.file().CurrentSize();
    if (!readable || !size.ok() || size.value() != shard.file().bytes().size())
      return Error{fmt::format("{} changed its size while it was read", shard.file().path()), "",
                   ""};
  }
  for (const Safetensors& shard : checkpoint->shards)
    RegisterWeightMap(shard.file().bytes(), shard.file().path());
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

std::optional<std::filesystem::path> FindAssistant(const std::filesystem::path& model_dir) {
  std::error_code code;
  std::filesystem::path dir = std::filesystem::weakly_canonical(model_dir, code);
  if (code) return std::nullopt;
  dir += "-assistant";
  auto config = ReadModelConfig(dir);
  if (!config.ok() || !config.value().is_drafter) return std::nullopt;
  return dir;
}

}  // namespace lapidary
