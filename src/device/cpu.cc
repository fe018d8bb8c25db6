#include <chrono>
#include <cstdlib>
#include <cstring>

#include "base/result.h"
#include "device/device.h"

namespace lapidary {
namespace {

class CpuGraph : public Graph {
 public:
  explicit CpuGraph(std::function<void()> work) : work_(std::move(work)) {}
  void Launch() override { work_(); }

 private:
  std::function<void()> work_;
};

class CpuDevice : public Device {
 public:
  const std::string& name() const override { return name_; }
  void* Allocate(int64_t bytes) override {
    constexpr int64_t kAlignment = 256;
    void* data = std::aligned_alloc(
        kAlignment, static_cast<size_t>((bytes + kAlignment - 1) / kAlignment * kAlignment));
    if (data == nullptr && bytes > 0)
      throw StartupError(fmt::format("cannot allocate {} bytes of memory", bytes));
    return data;
  }
  void Free(void* data) override { std::free(data); }
  void CopyIn(void* to, const void* from, int64_t bytes) override {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  void CopyOut(void* to, const void* from, int64_t bytes) override {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  void Fill(void* to, int byte, int64_t bytes) override {
    std::memset(to, byte, static_cast<size_t>(bytes));
  }
  void Synchronize() override {}
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

std::unique_ptr<Device> MakeCpuDevice() { return std::make_unique<CpuDevice>(); }

}  // namespace lapidary
