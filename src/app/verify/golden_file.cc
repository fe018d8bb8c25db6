#include "app/verify/golden_file.h"

#include <fmt/core.h>

namespace lapidary {
namespace {

constexpr int64_t kMaxPrompt = 1 << 20;

// Reads the keys of one entry; the first error stays.
class EntryReader {
 public:
  EntryReader(const Goldens& goldens, std::string name)
      : goldens_(goldens), name_(std::move(name)) {}

  // [count] or, with count < 0, any length from `least` on.
  std::span<const int32_t> Ids(const char* key, int64_t count, int64_t least, int64_t end) {
    const Tensor* tensor = Find(key);
    if (tensor == nullptr || tensor->dtype != DType::kI32 || tensor->rank != 1 ||
        tensor->rows() < least || tensor->rows() > kMaxPrompt ||
        (count >= 0 && tensor->rows() != count)) {
      Fail(key, count >= 0 ? fmt::format("must be I32 [{}]", count)
                           : fmt::format("must be I32 [L] with {} <= L <= {}", least, kMaxPrompt));
      return {};
    }
    const std::span<const int32_t> ids{tensor->i32(), static_cast<size_t>(tensor->rows())};
    CheckIds(key, ids, end);
    return ids;
  }
  Tensor Matrix(const char* key, DType dtype, int64_t rows, int64_t cols) {
    const Tensor* tensor = Find(key);
    if (tensor != nullptr && tensor->dtype == dtype && tensor->rank == 2 &&
        tensor->rows() == rows && tensor->cols() == cols)
      return *tensor;
    Fail(key,
         fmt::format("must be {} [{}, {}]", dtype == DType::kF32 ? "F32" : "BF16", rows, cols));
    return {};
  }
  Tensor Vector(const char* key, int64_t rows) {
    const Tensor* tensor = Find(key);
    if (tensor != nullptr && tensor->dtype == DType::kF32 && tensor->rank == 1 &&
        tensor->rows() == rows)
      return *tensor;
    Fail(key, fmt::format("must be F32 [{}]", rows));
    return {};
  }
  Tensor IdMatrix(const char* key, int64_t rows, int64_t end) {
    const Tensor* tensor = Find(key);
    if (tensor != nullptr && tensor->dtype == DType::kI32 && tensor->rank == 2 &&
        tensor->rows() == rows && tensor->cols() > 0) {
      CheckIds(key, {tensor->i32(), static_cast<size_t>(tensor->num_elements())}, end);
      return *tensor;
    }
    Fail(key, fmt::format("must be I32 [{}, N]", rows));
    return {};
  }
  bool Has(const char* key) const { return Find(key) != nullptr; }
  void Fail(const char* key, const std::string& rule) {
    const std::string full = name_ + "." + key;
    if (!error_) error_ = Error{fmt::format("goldens: {} {}", full, rule), full, ""};
  }
  template <typename Entry>
  Result<Entry> Finish(Entry entry) const {
    if (error_) return *error_;
    return entry;
  }

 private:
  const Tensor* Find(const char* key) const {
    const auto found = goldens_.find(name_ + "." + key);
    return found == goldens_.end() ? nullptr : &found->second;
  }
  void CheckIds(const char* key, std::span<const int32_t> ids, int64_t end) {
    for (const int32_t id : ids)
      if (id < 0 || id >= end) return Fail(key, fmt::format("holds {} of {}", id, end));
  }

  const Goldens& goldens_;
  std::string name_;
  std::optional<Error> error_;
};

std::optional<DType> DTypeOf(const std::string& name) {
  if (name == "F32") return DType::kF32;
  if (name == "I32") return DType::kI32;
  if (name == "BF16") return DType::kBf16;
  return std::nullopt;  // pixels and masks of media entries, which are skipped
}

}  // namespace

Goldens ReadGoldens(const Safetensors& file) {
  Goldens goldens;
  for (const auto& [name, entry] : file.tensors()) {
    Tensor tensor;
    const std::optional<DType> dtype = DTypeOf(entry.dtype);
    if (!dtype || entry.shape.empty() || entry.shape.size() > 3) continue;
    tensor.dtype = *dtype;
    const std::span<const std::byte> bytes = file.bytes(entry);
    if (reinterpret_cast<uintptr_t>(bytes.data()) % static_cast<uintptr_t>(SizeOf(*dtype)) != 0)
      throw StartupError(fmt::format("{}: tensor '{}' is misaligned", file.file().path(), name));
    tensor.data = const_cast<std::byte*>(bytes.data());
    tensor.rank = static_cast<int>(entry.shape.size());
    for (size_t i = 0; i < entry.shape.size(); ++i) tensor.shape[i] = entry.shape[i];
    tensor.row_stride = tensor.cols();
    goldens[name] = tensor;
  }
  return goldens;
}

Result<TextEntry> ReadTextEntry(const Goldens& goldens, const std::string& name,
                                const ModelConfig& config, DType dtype) {
  EntryReader reader(goldens, name);
  TextEntry entry;
  entry.name = name;
  entry.ids = reader.Ids("ids", -1, 1, config.vocab_size);
  const auto length = static_cast<int64_t>(entry.ids.size());
  if (reader.Has("rows")) {
    const std::span<const int32_t> rows = reader.Ids("rows", -1, 1, length);
    entry.rows.assign(rows.begin(), rows.end());
    for (size_t i = 1; i < rows.size(); ++i)
      if (rows[i] <= rows[i - 1]) reader.Fail("rows", "must ascend");
  } else {
    for (int32_t row = 0; row < length; ++row) entry.rows.push_back(row);
  }
  const auto num_rows = static_cast<int64_t>(entry.rows.size());
  entry.logits = reader.Matrix("logits", DType::kF32, num_rows, config.vocab_size);
  entry.greedy = reader.Ids("greedy", -1, 0, config.vocab_size);
  const auto num_greedy = static_cast<int64_t>(entry.greedy.size());
  if (dtype == DType::kF32) {
    entry.hidden = reader.Matrix("hidden", DType::kF32, num_rows, config.hidden);
    entry.margins = reader.Vector("greedy_margin", num_greedy);
  } else {
    entry.bf16_logits = reader.Matrix("bf16_logits", DType::kBf16, num_rows, config.vocab_size);
    entry.greedy_top = reader.IdMatrix("greedy_top", num_greedy, config.vocab_size);
  }
  return reader.Finish(std::move(entry));
}

bool HasDraftEntry(const Goldens& goldens, const std::string& name) {
  return goldens.contains(name + ".tokens");
}

Result<DraftEntry> ReadDraftEntry(const Goldens& goldens, const std::string& name,
                                  const ModelConfig& drafter, DType dtype) {
  EntryReader reader(goldens, name);
  DraftEntry entry;
  entry.name = name;
  entry.tokens = reader.Ids("tokens", -1, 0, drafter.vocab_size);
  const auto count = static_cast<int64_t>(entry.tokens.size());
  entry.logits = reader.Matrix("logits", DType::kF32, count, drafter.vocab_size);
  if (dtype == DType::kBf16)
    entry.bf16_logits = reader.Matrix("bf16_logits", DType::kBf16, count, drafter.vocab_size);
  return reader.Finish(std::move(entry));
}

}  // namespace lapidary
