#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "base/checked.h"
#include "io/file_json.h"
#include "io/sigbus_guard.h"

namespace lapidary {
namespace {

int64_t DTypeBytes(std::string_view dtype) {
  static constexpr std::pair<std::string_view, int64_t> kSizes[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
      {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
      {"U32", 4},  {"F32", 4}, {"I64", 8}, {"U64", 8},     {"F64", 8}};
  for (const auto& [name, bytes] : kSizes)
    if (name == dtype) return bytes;
  return 0;
}

// A JSON number as a non-negative int64, however it was stored.
bool ReadCount(const json::value& value, int64_t& out) {
  if (value.is_int64() && value.get_int64() >= 0) {
    out = value.get_int64();
    return true;
  }
  return false;
}

struct HeaderReader {
  std::string_view where;
  uint64_t data_start, file_size;

  Error Bad(std::string_view tensor, const std::string& rule) const {
    // Names come from the file: cut, so that an error stays a sentence.
    return Error{fmt::format("{}: tensor '{}' {}", where, tensor.substr(0, 200), rule),
                 std::string(tensor.substr(0, 200)), ""};
  }

  Result<TensorEntry> Read(std::string_view name, const json::value& value) const {
    const json::object* object = value.if_object();
    if (object == nullptr) return Bad(name, "is not an object");
    const json::value* dtype = object->if_contains("dtype");
    const json::value* shape = object->if_contains("shape");
    const json::value* offsets = object->if_contains("data_offsets");
    if (dtype == nullptr || !dtype->is_string()) return Bad(name, "has no dtype");
    if (shape == nullptr || !shape->is_array()) return Bad(name, "has no shape");
    if (offsets == nullptr || !offsets->is_array() || offsets->get_array().size() != 2)
      return Bad(name, "has no pair of data_offsets");
    TensorEntry entry;
    entry.dtype = std::string(dtype->get_string());
    std::optional<int64_t> bytes = DTypeBytes(entry.dtype);
    if (*bytes == 0)
      return Bad(name, fmt::format("has unknown dtype '{}'", entry.dtype.substr(0, 32)));
    if (shape->get_array().size() > kMaxSafetensorsRank)
      return Bad(name, fmt::format("has {} dimensions, at most {}", shape->get_array().size(),
                                   kMaxSafetensorsRank));
    for (const json::value& dimension : shape->get_array()) {
      int64_t count = 0;
      if (!ReadCount(dimension, count))
        return Bad(name, "has a dimension that is not a whole number >= 0");
      entry.shape.push_back(count);
      if (bytes) bytes = CheckedMul(*bytes, count);
    }
    if (!bytes) return Bad(name, "has a shape whose byte count overflows");
    int64_t begin = 0, end = 0;
    if (!ReadCount(offsets->get_array()[0], begin) || !ReadCount(offsets->get_array()[1], end) ||
        begin > end)
      return Bad(name, "has data_offsets that are not 0 <= begin <= end");
    const uint64_t data_bytes = file_size - data_start;
    if (static_cast<uint64_t>(end) > data_bytes)
      return Bad(
          name,
          fmt::format("ends at byte {} of the data, the file holds {}: it is cut off or damaged",
                      end, data_bytes));
    if (end - begin != *bytes)
      return Bad(name, fmt::format("has {} bytes by its data_offsets, {} by its shape", end - begin,
                                   *bytes));
    entry.offset = data_start + static_cast<uint64_t>(begin);
    entry.bytes = static_cast<uint64_t>(*bytes);
    return entry;
  }
};

}  // namespace

Result<TensorMap> ParseSafetensorsHeader(std::span<const std::byte> bytes, uint64_t file_size,
                                         std::string_view where) {
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof(header_bytes) || file_size < sizeof(header_bytes))
    return Error{fmt::format("{} has {} bytes, too few for a safetensors header", where, file_size),
                 "", ""};
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  if (header_bytes > kMaxSafetensorsHeader || header_bytes > file_size - 8 ||
      header_bytes > bytes.size() - 8)
    return Error{fmt::format("{} claims a header of {} bytes; the file has {} and the limit is {}",
                             where, header_bytes, file_size, kMaxSafetensorsHeader),
                 "", ""};
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, header_bytes);
  auto parsed = ParseFileJson(text, fmt::format("the header of {}", where));
  if (!parsed.ok()) return parsed.error();
  const json::object* object = parsed.value().if_object();
  if (object == nullptr)
    return Error{fmt::format("the header of {} is not an object", where), "", ""};
  const HeaderReader reader{where, 8 + header_bytes, file_size};
  TensorMap tensors;
  std::vector<std::pair<const TensorEntry*, const std::string*>> by_offset;
  for (const auto& member : *object) {
    if (member.key() == "__metadata__") continue;
    auto entry = reader.Read(member.key(), member.value());
    if (!entry.ok()) return entry.error();
    const auto place = tensors.emplace(std::string(member.key()), std::move(entry).value()).first;
    by_offset.emplace_back(&place->second, &place->first);
  }
  std::sort(by_offset.begin(), by_offset.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first->offset, a.first->bytes) < std::pair(b.first->offset, b.first->bytes);
  });
  // The format leaves no byte between tensors nor after the last: a gap means a damaged header.
  uint64_t end = reader.data_start;
  for (const auto& [entry, name] : by_offset) {
    if (entry->offset != end)
      return reader.Bad(
          *name,
          fmt::format("begins at byte {} of the file where {} is expected: it {}", entry->offset,
                      end, entry->offset < end ? "overlaps another" : "leaves a gap"));
    end += entry->bytes;
  }
  if (end != file_size)
    return Error{fmt::format("{} has {} bytes, its tensors end at {}", where, file_size, end), "",
                 ""};
  return tensors;
}

Result<Safetensors> Safetensors::Open(const std::filesystem::path& path) {
  auto opened = MappedFile::Open(path);
  if (!opened.ok()) return opened.error();
  MappedFile file = std::move(opened).value();
  // The header is copied under the guard, so that the parser, which owns memory, never faults.
  const std::span<const std::byte> bytes = file.bytes();
  uint64_t header_bytes = 0;
  auto read_length = [&] { std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes)); };
  if (bytes.size() >= sizeof(header_bytes) && !ReadGuarded(bytes, read_length))
    return Truncated(file.path());
  const uint64_t wanted = std::min<uint64_t>(header_bytes, kMaxSafetensorsHeader) + 8;
  std::vector<std::byte> header(std::min<uint64_t>(wanted, bytes.size()));
  auto copy = [&] { std::memcpy(header.data(), bytes.data(), header.size()); };
  if (!header.empty() && !ReadGuarded(bytes, copy)) return Truncated(file.path());
  auto tensors = ParseSafetensorsHeader(header, bytes.size(), file.path());
  if (!tensors.ok()) return tensors.error();
  return Safetensors(std::move(file), std::move(tensors).value());
}

Status Safetensors::CheckSize() const {
  auto size = file_.CurrentSize();
  if (!size.ok()) return size.error();
  if (size.value() != file_.bytes().size())
    return Error{fmt::format("{} changed while it was loaded: it had {} bytes, now {}",
                             file_.path(), file_.bytes().size(), size.value()),
                 "", ""};
  return Ok{};
}

Error Truncated(const std::string& file) {
  return Error{fmt::format("{} was truncated while it was loaded, or its disk failed", file), "",
               ""};
}

}  // namespace lapidary
