#include "model/loader.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <set>
#include <vector>

#include "base/log.h"
#include "io/file_json.h"
#include "io/safetensors.h"
#include "io/sigbus_guard.h"
#include "model/bind_weights.h"
#include "model/placed_weights.h"
#include "model/tensor_spec.h"
#include "model/upload.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxIndexBytes = uint64_t{64} << 20;
constexpr size_t kMaxShards = 1000;
// Misaligned tensors are copied up to this sum; a large file must not cost its size again.
constexpr size_t kMaxCopiedBytes = size_t{32} << 20;
constexpr size_t kGuardedChunk = size_t{16} << 20;

Error Refuse(std::string message) { return Error{std::move(message), "", ""}; }

// Names come from files: cut, so that an error stays a sentence.
std::string Short(std::string_view name) { return std::string(name.substr(0, 200)); }

class MappedCheckpoint : public Checkpoint {
 public:
  std::vector<Safetensors> files;
  std::vector<WeightMapMark> marks;
  std::vector<std::vector<int64_t>> copies;  // tensors that lie misaligned in their file
};

// Where a tensor lies.
struct Place {
  const Safetensors* file = nullptr;
  const TensorEntry* entry = nullptr;
  std::string written;  // the name in the file
};
using PlaceMap = std::map<std::string, Place, std::less<>>;

// model.safetensors.index.json: which file of the folder holds each tensor.
Result<std::map<std::string, std::string>> ReadIndex(const fs::path& path) {
  auto text = ReadFile(path, kMaxIndexBytes);
  if (!text.ok()) return text.error();
  auto parsed = ParseFileJson(text.value(), path.string());
  if (!parsed.ok()) return parsed.error();
  const json::object* root = parsed.value().if_object();
  const json::value* map = root == nullptr ? nullptr : root->if_contains("weight_map");
  if (map == nullptr || !map->is_object())
    return Refuse(fmt::format("{} has no object 'weight_map'", path.string()));
  std::map<std::string, std::string> index;
  for (const auto& member : map->get_object()) {
    const std::string tensor(member.key());
    const json::string* file = member.value().if_string();
    // A shard is a file of this folder, never a path out of it.
    if (file == nullptr || file->size() > 255 || !file->ends_with(".safetensors") ||
        file->find_first_of(std::string_view("/\0", 2)) != json::string::npos)
      return Refuse(
          fmt::format("{}: tensor '{}' is not mapped to a .safetensors file of the folder",
                      path.string(), Short(tensor)));
    index[tensor] = std::string(*file);
  }
  return index;
}

Result<std::vector<Safetensors>> OpenFiles(const fs::path& dir) {
  std::vector<Safetensors> files;
  std::error_code code;
  const fs::path single = dir / "model.safetensors",
                 index_path = dir / "model.safetensors.index.json";
  if (!fs::exists(single, code) && !fs::exists(index_path, code))
    return Refuse(fmt::format("{} holds neither model.safetensors nor model.safetensors.index.json",
                              dir.string()));
  if (fs::exists(single, code)) {
    auto file = Safetensors::Open(single);
    if (!file.ok()) return file.error();
    files.push_back(std::move(file).value());
    return files;
  }
  auto read = ReadIndex(index_path);
  if (!read.ok()) return read.error();
  const std::map<std::string, std::string>& index = read.value();
  std::set<std::string> names;
  for (const auto& [tensor, file] : index) names.insert(file);
  if (names.size() > kMaxShards)
    return Refuse(fmt::format("{} names {} shards, the limit is {}", index_path.string(),
                              names.size(), kMaxShards));
  size_t num_tensors = 0;
  for (const std::string& name : names) {
    auto file = Safetensors::Open(dir / name);
    if (!file.ok()) return file.error();
    for (const auto& [tensor, entry] : file.value().tensors()) {
      const auto found = index.find(tensor);
      if (found == index.end() || found->second != name)
        return Refuse(fmt::format("{} holds tensor '{}', which {} does not place there",
                                  (dir / name).string(), Short(tensor), index_path.string()));
    }
    num_tensors += file.value().tensors().size();
    files.push_back(std::move(file).value());
  }
  if (num_tensors == index.size()) return files;
  for (const auto& [tensor, name] : index) {
    const bool there = std::any_of(files.begin(), files.end(), [&](const Safetensors& file) {
      return file.tensors().contains(tensor);
    });
    if (!there)
      return Refuse(fmt::format("{} has no tensor '{}', which {} places there",
                                (dir / name).string(), Short(tensor), index_path.string()));
  }
  return files;
}

Result<PlaceMap> PlaceTensors(const std::vector<Safetensors>& files, bool is_drafter) {
  PlaceMap places;
  for (const Safetensors& file : files) {
    for (const auto& [written, entry] : file.tensors()) {
      const auto [place, added] =
          places.emplace(PublishedName(written, is_drafter), Place{&file, &entry, written});
      if (!added)
        return Refuse(fmt::format("{}: tensor '{}' occurs twice, also as '{}' in {}",
                                  file.file().path(), Short(written), Short(place->second.written),
                                  place->second.file->file().path()));
    }
  }
  return places;
}

Error Extra(const Place& place) {
  const std::string_view name = place.written;
  const size_t experts = name.find("experts.");
  if (experts != name.npos && experts + 8 < name.size() && name[experts + 8] >= '0' &&
      name[experts + 8] <= '9')
    return Refuse(fmt::format(
        "{}: tensor '{}' is one expert of a checkpoint that stores them apart; convert it to "
        "the published form with experts.gate_up_proj and experts.down_proj",
        place.file->file().path(), Short(name)));
  return Refuse(fmt::format("{}: tensor '{}' does not belong to a model of this config.json",
                            place.file->file().path(), Short(name)));
}

// Every tensor of the files is in the specs with its shape and dtype, and every spec that must be
// there is.
Status CheckTensors(const std::vector<TensorSpec>& specs, const PlaceMap& places,
                    const fs::path& dir) {
  size_t num_known = 0;
  const TensorSpec* missing = nullptr;
  for (const TensorSpec& spec : specs) {
    const auto found = places.find(spec.name);
    if (found == places.end()) {
      if (spec.role != TensorRole::kUnused && missing == nullptr) missing = &spec;
      continue;
    }
    ++num_known;
    const Place& place = found->second;
    if (!spec.MatchesShape(place.entry->shape))
      return Refuse(fmt::format("{}: tensor '{}' has shape {}, config.json asks for {}",
                                place.file->file().path(), place.written,
                                ShapeText(place.entry->shape), ShapeText(spec.shape)));
    if (place.entry->dtype != spec.dtype)
      return Refuse(fmt::format("{}: tensor '{}' has dtype {}, only {} is supported",
                                place.file->file().path(), place.written, place.entry->dtype,
                                spec.dtype));
  }
  if (num_known < places.size()) {
    std::set<std::string_view> known;
    for (const TensorSpec& spec : specs) known.insert(spec.name);
    for (const auto& [name, place] : places)
      if (!known.contains(name)) return Extra(place);
  }
  if (missing != nullptr)
    return Refuse(fmt::format("{}: tensor '{}' of shape {} is missing from the safetensors files",
                              dir.string(), missing->name, ShapeText(missing->shape)));
  return Ok{};
}

// The first value that token_ordering has twice or that is no token id; -1 when it is a
// permutation.
int64_t FirstBadOrdering(const int64_t* ordering, uint8_t* seen, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if (ordering[i] < 0 || ordering[i] >= count || seen[ordering[i]]++ != 0) return i;
  }
  return -1;
}

// Reads the used tensors of one checkpoint into views.
class TensorReader {
 public:
  TensorReader(MappedCheckpoint& checkpoint, const PlaceMap& places, const LoadOptions& options)
      : checkpoint_(checkpoint), places_(places), options_(options) {}

  // All used tensors, or the ids among them.
  Status Read(const std::vector<TensorSpec>& specs, bool only_ids) {
    for (const TensorSpec& spec : specs) {
      if (spec.role != TensorRole::kUsed || (only_ids && spec.dtype != "I64")) continue;
      const Status status = ReadOne(spec);
      if (!status.ok()) return status.error();
    }
    return Ok{};
  }

  Tensor Find(const std::string& name) const {
    const auto found = tensors_.find(name);
    CHECK(found != tensors_.end(), "no tensor {}", name);
    return found->second;
  }

 private:
  Status ReadOne(const TensorSpec& spec) {
    const Place& place = places_.find(spec.name)->second;
    const std::span<const std::byte> bytes = place.file->bytes(*place.entry);
    const bool is_ids = spec.dtype == "I64";
    // Single numbers and ids are read below in any case, so under the guard too.
    if (options_.touch_all_bytes || is_ids || bytes.size() <= 2) {
      const Status touched = Touch(place, bytes, !is_ids);
      if (!touched.ok()) return touched.error();
    }
    const size_t alignment = is_ids ? 8 : 2;
    const void* data = bytes.data();
    if (reinterpret_cast<uintptr_t>(data) % alignment != 0) {
      copied_bytes_ += bytes.size();
      if (copied_bytes_ > kMaxCopiedBytes)
        return Refuse(fmt::format(
            "{}: tensor '{}' begins at an address that is no multiple of {}; save the file again "
            "with a padded header",
            place.file->file().path(), place.written, alignment));
      std::vector<int64_t>& copy = checkpoint_.copies.emplace_back(bytes.size() / 8 + 1);
      auto copy_bytes = [&] { std::memcpy(copy.data(), bytes.data(), bytes.size()); };
      if (!ReadGuarded(bytes, copy_bytes)) return Truncated(place.file->file().path());
      data = copy.data();
    }
    // A read-only map: ops never write weights.
    const Tensor tensor = TensorOf(spec, const_cast<void*>(data));
    if (is_ids) {
      const Status ordered = CheckOrdering(place, tensor);
      if (!ordered.ok()) return ordered.error();
    }
    tensors_.emplace(spec.name, tensor);
    return Ok{};
  }

  Status Touch(const Place& place, std::span<const std::byte> bytes, bool is_float) {
    const std::string& file = place.file->file().path();
    for (size_t at = 0; at < bytes.size(); at += kGuardedChunk) {
      const auto chunk = bytes.subspan(at, std::min(kGuardedChunk, bytes.size() - at));
      bool bad = false;
      auto scan = [&] { bad = HasNonFinite(chunk.data(), chunk.size()); };
      if (!ReadGuarded(chunk, scan)) return Truncated(file);
      if (bad && is_float) return DamagedTensor(file, place.written);
      done_bytes_ += chunk.size();
      if (options_.progress) options_.progress(done_bytes_, checkpoint_.weight_bytes);
    }
    return Ok{};
  }

  Status CheckOrdering(const Place& place, const Tensor& ordering) const {
    std::vector<uint8_t> seen(static_cast<size_t>(ordering.rows()));
    int64_t bad = -1;
    auto check = [&] { bad = FirstBadOrdering(ordering.i64(), seen.data(), ordering.rows()); };
    const std::span<const std::byte> bytes(static_cast<const std::byte*>(ordering.data),
                                           place.entry->bytes);
    if (!ReadGuarded(bytes, check)) return Truncated(place.file->file().path());
    if (bad < 0) return Ok{};
    return Refuse(
        fmt::format("{}: tensor '{}' is not a permutation of the {} token ids at entry {}",
                    place.file->file().path(), place.written, ordering.rows(), bad));
  }

  MappedCheckpoint& checkpoint_;
  const PlaceMap& places_;
  const LoadOptions& options_;
  std::map<std::string, Tensor> tensors_;
  uint64_t done_bytes_ = 0;
  uint64_t copied_bytes_ = 0;
};

Result<std::unique_ptr<Checkpoint>> UploadTensors(const ModelConfig& config, const PlaceMap& places,
                                                  const std::vector<TensorSpec>& specs,
                                                  const LoadOptions& options) {
  Device& device = options.ops->device();
  const auto start = std::chrono::steady_clock::now();
  auto checkpoint = std::make_unique<PlacedCheckpoint>(config, specs, options.ops);
  std::vector<UploadJob> jobs;
  for (const TensorSpec& spec : specs) {
    if (spec.role != TensorRole::kUsed) continue;
    const Place& place = places.find(spec.name)->second;
    jobs.push_back({&place.file->file(), place.written, place.entry->offset, place.entry->bytes,
                    checkpoint->placed.Find(spec.name).data, spec.dtype == "BF16"});
  }
  const Status uploaded = Upload(jobs, device, options.progress);
  if (!uploaded.ok()) return uploaded.error();
  checkpoint->Bind();
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  const double gigabytes = static_cast<double>(checkpoint->weight_bytes) * 1e-9;
  LogInfo("weights: {:.2f} GB to {} in {:.2f} s, {:.1f} GB/s", gigabytes, device.name(),
          spent.count(), gigabytes / spent.count());
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

}  // namespace

Result<std::unique_ptr<Checkpoint>> LoadCheckpoint(const fs::path& model_dir,
                                                   const LoadOptions& options) {
  auto checkpoint = std::make_unique<MappedCheckpoint>();
  auto config = ReadModelConfig(model_dir);
  if (!config.ok()) return config.error();
  checkpoint->config = std::move(config).value();
  auto files = OpenFiles(model_dir);
  if (!files.ok()) return files.error();
  checkpoint->files = std::move(files).value();
  for (const Safetensors& file : checkpoint->files)
    checkpoint->marks.emplace_back(file.file().bytes(), file.file().path());
  auto places = PlaceTensors(checkpoint->files, checkpoint->config.is_drafter);
  if (!places.ok()) return places.error();
  const std::vector<TensorSpec> specs = TensorSpecs(checkpoint->config);
  const Status checked = CheckTensors(specs, places.value(), model_dir);
  if (!checked.ok()) return checked.error();
  checkpoint->weight_bytes = WeightBytes(checkpoint->config);
  TensorReader reader(*checkpoint, places.value(), options);
  const Status read = reader.Read(specs, options.ops != nullptr);
  if (!read.ok()) return read.error();
  if (options.ops != nullptr)
    return UploadTensors(checkpoint->config, places.value(), specs, options);
  checkpoint->weights = BindWeights(
      checkpoint->config, [&](const std::string& name) { return reader.Find(name); }, HostDevice());
  for (const Safetensors& file : checkpoint->files) {
    const Status size = file.CheckSize();
    if (!size.ok()) return size.error();
  }
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

}  // namespace lapidary
