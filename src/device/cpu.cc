#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "base/result.h"
#include "device/device.h"

namespace lapidary {
namespace {

// Nothing may be copied from or to null.
void Copy(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

class CpuGraph : public Graph {
 public:
  explicit CpuGraph(std::function<void()> work) : work_(std::move(work)) {}
  void Launch() override { work_(); }

 private:
  std::function<void()> work_;
};

class CpuCopyQueue : public CopyQueue {
 public:
  void CopyIn(void* to, const void* from, int64_t bytes) override { Copy(to, from, bytes); }
};

class CpuDevice : public Device {
 public:
  const std::string& name() const override { return name_; }
  bool is_host() const override { return true; }
  int64_t total_bytes() const override {
    return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
  }
  int64_t free_bytes() const override {
    std::ifstream file("/proc/meminfo");
    std::string key, unit;
    int64_t kib = 0;
    while (file >> key >> kib && std::getline(file, unit))
      if (key == "MemAvailable:") return kib * 1024;
    throw StartupError("cannot read MemAvailable of /proc/meminfo");
  }
  void* Allocate(int64_t bytes) override {
    constexpr int64_t kAlignment = 256;
    void* data = std::aligned_alloc(
        kAlignment, static_cast<size_t>((bytes + kAlignment - 1) / kAlignment * kAlignment));
    if (data == nullptr && bytes > 0)
      throw StartupError(fmt::format("cannot allocate {} bytes of memory", bytes));
    return data;
  }
  void Free(void* data) override { std::free(data); }
  void CopyIn(void* to, const void* from, int64_t bytes) override { Copy(to, from, bytes); }
  void CopyOut(void* to, const void* from, int64_t bytes) override { Copy(to, from, bytes); }
  void Fill(void* to, int byte, int64_t bytes) override {
    if (bytes > 0) std::memset(to, byte, static_cast<size_t>(bytes));
  }
  void Synchronize() override {}
  void* AllocateHost(int64_t bytes) override { return Allocate(bytes); }
  void FreeHost(void* data) override { Free(data); }
  std::unique_ptr<CopyQueue> MakeCopyQueue() override { return std::make_unique<CpuCopyQueue>(); }
  void QueueCopyIn(void* to, const void* from, int64_t bytes) override { CopyIn(to, from, bytes); }
  void QueueCopyOut(void* to, const void* from, int64_t bytes) override {
    CopyOut(to, from, bytes);
  }
  uint64_t Mark() override { return 0; }
  void WaitFor(uint64_t) override {}
  std::unique_ptr<Graph> Capture(const std::function<void()>& work) override {
    return std::make_unique<CpuGraph>(work);
  }
  double Time(const std::function<void()>& work) override {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
        .count();
  }

 private:
  std::string name_ = "cpu";
};

}  // namespace

Device& HostDevice() {
  static CpuDevice device;
  return device;
}

}  // namespace lapidary
