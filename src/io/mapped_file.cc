#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace lapidary {

Result<MappedFile> MappedFile::Open(const std::filesystem::path& path, uint64_t max_bytes) {
  MappedFile file;
  file.path_ = path.string();
  // O_NONBLOCK: opening a FIFO by mistake must fail, not wait.
  file.fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file.fd_ < 0)
    return Error{fmt::format("cannot open {}: {}", file.path_, std::strerror(errno)), "", ""};
  struct stat info{};
  if (fstat(file.fd_, &info) != 0 || !S_ISREG(info.st_mode))
    return Error{fmt::format("{} is not a regular file", file.path_), "", ""};
  file.size_ = static_cast<size_t>(info.st_size);
  if (file.size_ > max_bytes)
    return Error{fmt::format("{} has {} bytes, the limit is {}", file.path_, file.size_, max_bytes),
                 "", ""};
  if (file.size_ == 0) return file;
  void* data = mmap(nullptr, file.size_, PROT_READ, MAP_SHARED, file.fd_, 0);
  if (data == MAP_FAILED) {
    file.size_ = 0;
    return Error{fmt::format("cannot map {}: {}", file.path_, std::strerror(errno)), "", ""};
  }
  file.data_ = static_cast<const std::byte*>(data);
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
  if (fd_ >= 0) close(fd_);
}

Result<uint64_t> MappedFile::CurrentSize() const {
  struct stat info{};
  if (fstat(fd_, &info) != 0)
    return Error{fmt::format("cannot stat {}: {}", path_, std::strerror(errno)), "", ""};
  return static_cast<uint64_t>(info.st_size);
}

Status MappedFile::Read(uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t count = pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0)
      return Error{fmt::format("cannot read {}: {}", path_, std::strerror(errno)), "", ""};
    if (count == 0) return Error{fmt::format("{} ended after {} bytes", path_, offset), "", ""};
    offset += static_cast<uint64_t>(count);
    out = out.subspan(static_cast<size_t>(count));
  }
  return Ok{};
}

Result<std::string> ReadFile(const std::filesystem::path& path, uint64_t max_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    return Error{fmt::format("cannot open {}: {}", path.string(), std::strerror(errno)), "", ""};
  struct stat info{};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return Error{fmt::format("{} is not a regular file", path.string()), "", ""};
  }
  if (static_cast<uint64_t>(info.st_size) > max_bytes) {
    close(fd);
    return Error{
        fmt::format("{} has {} bytes, the limit is {}", path.string(), info.st_size, max_bytes), "",
        ""};
  }
  std::string text(static_cast<size_t>(info.st_size), '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = read(fd, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    done += static_cast<size_t>(count);
  }
  close(fd);
  if (done != text.size())
    return Error{fmt::format("{} ended after {} bytes", path.string(), done), "", ""};
  return text;
}

}  // namespace lapidary
