#include "device/cuda_trace.h"

#include <cuda_runtime_api.h>
#include <cupti.h>
#include <cxxabi.h>
#include <dlfcn.h>
#include <nvtx3/nvToolsExt.h>

#include <cstdlib>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/trace.h"

namespace lapidary {
namespace {

constexpr const char* kLibrary = "libcupti.so.13";
constexpr size_t kBufferBytes = size_t{4} << 20;
constexpr CUpti_ActivityKind kKinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
                                         CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMSET};

// The functions used, under their own names; null where the library is missing.
struct Library {
  void* handle = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
#define LAPIDARY_FUNCTION(name) \
  decltype(&::name) name =      \
      handle == nullptr ? nullptr : reinterpret_cast<decltype(&::name)>(dlsym(handle, #name))
  LAPIDARY_FUNCTION(cuptiActivityRegisterCallbacks);
  LAPIDARY_FUNCTION(cuptiActivityRegisterTimestampCallback);
  LAPIDARY_FUNCTION(cuptiActivityEnable);
  LAPIDARY_FUNCTION(cuptiActivityDisable);
  LAPIDARY_FUNCTION(cuptiActivityFlushAll);
  LAPIDARY_FUNCTION(cuptiActivityGetNextRecord);
#undef LAPIDARY_FUNCTION
  bool is_whole() const {
    return cuptiActivityRegisterCallbacks != nullptr &&
           cuptiActivityRegisterTimestampCallback != nullptr && cuptiActivityEnable != nullptr &&
           cuptiActivityDisable != nullptr && cuptiActivityFlushAll != nullptr &&
           cuptiActivityGetNextRecord != nullptr;
  }
};

// The function's own name: without return type, namespaces and arguments.
std::string ShortName(const char* mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> demangled(
      abi::__cxa_demangle(mangled, nullptr, nullptr, &status), std::free);
  std::string name = status == 0 ? demangled.get() : mangled;
  int depth = 0;
  size_t begin = 0, end = name.size();
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>') --depth;
    if (depth == 0 && name[i] == '(' && name.compare(i, 11, "(anonymous ") != 0) {
      end = i;
      break;
    }
    if (depth == 0 && (name[i] == ' ' || (name[i] == ':' && i > 0 && name[i - 1] == ':')))
      begin = i + 1;
  }
  return begin < end ? name.substr(begin, end - begin) : name;
}

class CudaTrace : public TraceSource {
 public:
  void Start() override {
    start_ns_ = TraceNowNs();
    if (!library_) {
      library_.emplace();
      if (!library_->is_whole()) {
        const char* why = dlerror();
        LogWarning("a trace without kernels: cannot use {}: {}", kLibrary,
                   why == nullptr ? "functions are missing" : why);
        return;
      }
      library_->cuptiActivityRegisterTimestampCallback(
          [] { return static_cast<uint64_t>(TraceNowNs()); });
      library_->cuptiActivityRegisterCallbacks(&CudaTrace::TakeBuffer, &CudaTrace::GiveBuffer);
    }
    if (!library_->is_whole()) return;
    for (const CUpti_ActivityKind kind : kKinds)
      if (const CUptiResult result = library_->cuptiActivityEnable(kind); result != CUPTI_SUCCESS)
        LogWarning("a trace without some of its kernels: CUPTI activity {}: error {}",
                   static_cast<int>(kind), static_cast<int>(result));
  }

  std::vector<TraceEvent> Stop() override {
    if (!library_->is_whole()) return {};
    cudaDeviceSynchronize();
    for (const CUpti_ActivityKind kind : kKinds) library_->cuptiActivityDisable(kind);
    library_->cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
    const std::lock_guard lock(mutex_);
    return std::exchange(events_, {});
  }

  static CudaTrace& Instance() {
    static CudaTrace trace;
    return trace;
  }

 private:
  static void CUPTIAPI TakeBuffer(uint8_t** buffer, size_t* size, size_t* max_records) {
    *buffer = static_cast<uint8_t*>(std::aligned_alloc(8, kBufferBytes));
    *size = *buffer == nullptr ? 0 : kBufferBytes;
    *max_records = 0;  // as many as fit
  }
  static void CUPTIAPI GiveBuffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
    Instance().Read(buffer, valid);
    std::free(buffer);
  }

  void Read(uint8_t* buffer, size_t valid) {
    const std::lock_guard lock(mutex_);
    CUpti_Activity* record = nullptr;
    while (library_->cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
      if (events_.size() >= Trace::kMaxEvents) return;
      if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
        const auto& kernel = *reinterpret_cast<CUpti_ActivityKernel10*>(record);
        Add(kernel, ShortName(kernel.name));
      } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
        const auto& copy = *reinterpret_cast<CUpti_ActivityMemcpy6*>(record);
        Add(copy, copy.copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_HTOD   ? "copy in"
                  : copy.copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_DTOH ? "copy out"
                                                                     : "copy");
      } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
        Add(*reinterpret_cast<CUpti_ActivityMemset4*>(record), "fill");
      }
    }
  }
  template <typename Record>
  void Add(const Record& record, std::string name) {
    if (static_cast<int64_t>(record.start) < start_ns_) return;  // queued before, or no time at all
    events_.push_back({std::move(name),
                       fmt::format("GPU {} stream {}", record.deviceId, record.streamId),
                       static_cast<int64_t>(record.start), static_cast<int64_t>(record.end)});
  }

  std::optional<Library> library_;
  int64_t start_ns_ = 0;
  std::mutex mutex_;
  std::vector<TraceEvent> events_;  // guarded by mutex_
};

}  // namespace

void AddCudaTrace() {
  static std::once_flag once;
  std::call_once(once, [] {
    Trace::AddSource(&CudaTrace::Instance());
    Trace::SetRanges([](const char* name) { nvtxRangePushA(name); }, [] { nvtxRangePop(); });
  });
}

}  // namespace lapidary
