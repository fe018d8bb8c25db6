// MappedFile: a whole file mapped read-only.
#ifndef LAPIDARY_IO_MAPPED_FILE_H_
#define LAPIDARY_IO_MAPPED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "base/result.h"

namespace lapidary {

class MappedFile {
 public:
  // Errors: missing, not a regular file, larger than max_bytes, or not mappable; the message names
  // the file.
  static Result<MappedFile> Open(const std::filesystem::path& path,
                                 uint64_t max_bytes = UINT64_MAX);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  // The file's size on disk now; differs from bytes().size() when it was truncated or grew since
  // Open.
  Result<uint64_t> CurrentSize() const;
  // Reads bytes from `offset` on without the map. Errors: the file ends before, or cannot be read.
  // Thread-safe.
  Status Read(uint64_t offset, std::span<std::byte> out) const;

 private:
  MappedFile() = default;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  int fd_ = -1;
  std::string path_;
};

// Reads a small file whole. Errors as Open.
Result<std::string> ReadFile(const std::filesystem::path& path, uint64_t max_bytes);

}  // namespace lapidary

#endif  // LAPIDARY_IO_MAPPED_FILE_H_
