#include "model/upload.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <thread>

namespace lapidary {
namespace {

constexpr uint64_t kBufferBytes = uint64_t{32} << 20;
constexpr uint64_t kMaxThreads = 8;

// The stretches of all jobs in order, taken by several threads.
class Uploader {
 public:
  Uploader(const std::vector<UploadJob>& jobs, Device& device,
           const std::function<void(uint64_t, uint64_t)>& progress)
      : jobs_(jobs), device_(device), progress_(progress) {
    for (const UploadJob& job : jobs) total_bytes_ += job.bytes;
  }

  Status Run() {
    const uint64_t num_threads = std::min(kMaxThreads, total_bytes_ / kBufferBytes + 1);
    std::vector<std::thread> threads;
    threads.reserve(num_threads);
    for (uint64_t i = 0; i < num_threads; ++i) threads.emplace_back([this] { Work(); });
    for (std::thread& thread : threads) thread.join();
    if (thrown_) std::rethrow_exception(thrown_);
    if (error_) return *error_;
    return Ok{};
  }

 private:
  struct Stretch {
    const UploadJob* job;
    uint64_t begin, bytes;  // of the job
  };

  void Work() {
    try {
      const auto bytes = static_cast<int64_t>(std::min(kBufferBytes, total_bytes_));
      const HostMemory buffer(device_, bytes);
      const std::unique_ptr<CopyQueue> queue = device_.MakeCopyQueue();
      auto* const data = static_cast<std::byte*>(buffer.data());
      while (const std::optional<Stretch> stretch = Take())
        if (!Send(*stretch, data, *queue)) return;
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!thrown_) thrown_ = std::current_exception();
    }
  }

  std::optional<Stretch> Take() {
    const std::lock_guard lock(mutex_);
    if (error_ || thrown_) return std::nullopt;
    while (job_ < jobs_.size() && begin_ == jobs_[job_].bytes) {
      ++job_;
      begin_ = 0;
    }
    if (job_ == jobs_.size()) return std::nullopt;
    const Stretch stretch{&jobs_[job_], begin_, std::min(kBufferBytes, jobs_[job_].bytes - begin_)};
    begin_ += stretch.bytes;
    return stretch;
  }

  bool Send(const Stretch& stretch, std::byte* data, CopyQueue& queue) {
    const UploadJob& job = *stretch.job;
    const Status read = job.file->Read(job.offset + stretch.begin, {data, stretch.bytes});
    if (!read.ok()) return Fail(read.error());
    if (job.checks_finite && HasNonFinite(data, stretch.bytes))
      return Fail(DamagedTensor(job.file->path(), job.name));
    queue.CopyIn(static_cast<char*>(job.to) + stretch.begin, data,
                 static_cast<int64_t>(stretch.bytes));
    const std::lock_guard lock(mutex_);
    done_bytes_ += stretch.bytes;
    if (progress_) progress_(done_bytes_, total_bytes_);
    return true;
  }

  bool Fail(Error error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
    return false;
  }

  const std::vector<UploadJob>& jobs_;
  Device& device_;
  const std::function<void(uint64_t, uint64_t)>& progress_;
  uint64_t total_bytes_ = 0;

  std::mutex mutex_;  // guards all below
  size_t job_ = 0;    // the next stretch: of this job, from here
  uint64_t begin_ = 0;
  uint64_t done_bytes_ = 0;
  std::optional<Error> error_;
  std::exception_ptr thrown_;
};

}  // namespace

Status Upload(const std::vector<UploadJob>& jobs, Device& device,
              const std::function<void(uint64_t, uint64_t)>& progress) {
  return Uploader(jobs, device, progress).Run();
}

bool HasNonFinite(const std::byte* data, size_t bytes) {
  constexpr uint64_t kExponents = 0x7f807f807f807f80, kOnes = 0x0001000100010001,
                     kTops = 0x8000800080008000;
  uint64_t found = 0;
  size_t at = 0;
  for (; at + 8 <= bytes; at += 8) {
    uint64_t four;
    std::memcpy(&four, data + at, 8);
    const uint64_t difference = (four & kExponents) ^ kExponents;  // a lane is 0 where all ones
    found |= (difference - kOnes) & ~difference & kTops;
  }
  for (; at + 2 <= bytes; at += 2) {
    uint16_t one;
    std::memcpy(&one, data + at, 2);
    if ((one & 0x7f80) == 0x7f80) found = 1;
  }
  return found != 0;
}

Error DamagedTensor(const std::string& file, const std::string& tensor) {
  return Error{
      fmt::format("{}: tensor '{}' holds a NaN or an infinity: the file is damaged", file, tensor),
      "", ""};
}

}  // namespace lapidary
