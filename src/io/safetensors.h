// Safetensors: one mapped file and the checked map of its tensors. Every offset, product and sum is
// checked against the file's real size before it is used (RELIABILITY.md S4).
#ifndef LAPIDARY_IO_SAFETENSORS_H_
#define LAPIDARY_IO_SAFETENSORS_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "io/mapped_file.h"

namespace lapidary {

inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;
inline constexpr size_t kMaxSafetensorsRank = 8;

struct TensorEntry {
  std::string dtype;  // as written: "BF16", "F32", "I64", ...
  std::vector<int64_t> shape;
  uint64_t offset = 0;  // from the start of the file
  uint64_t bytes = 0;
};

using TensorMap = std::map<std::string, TensorEntry, std::less<>>;

// Parses the header of a file with these first bytes and this size. `where` names the file in
// errors. Entries cover the data without overlap or gap, lie inside the file and hold exactly shape
// x dtype bytes.
Result<TensorMap> ParseSafetensorsHeader(std::span<const std::byte> bytes, uint64_t file_size,
                                         std::string_view where);

// What a fault under ReadGuarded means for the file.
Error Truncated(const std::string& file);

// One safetensors file: its map and where each tensor lies in it.
class Safetensors {
 public:
  static Result<Safetensors> Open(const std::filesystem::path& path);
  const TensorMap& tensors() const { return tensors_; }
  const MappedFile& file() const { return file_; }
  // Whether the file still has the size it had when opened.
  Status CheckSize() const;
  std::span<const std::byte> bytes(const TensorEntry& entry) const {
    return file_.bytes().subspan(entry.offset, entry.bytes);
  }

 private:
  Safetensors(MappedFile file, TensorMap tensors)
      : file_(std::move(file)), tensors_(std::move(tensors)) {}
  MappedFile file_;
  TensorMap tensors_;
};

}  // namespace lapidary

#endif  // LAPIDARY_IO_SAFETENSORS_H_
