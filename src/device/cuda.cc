#include "device/cuda.h"

#include <cuda_runtime_api.h>

#include <array>

#include "base/check.h"
#include "base/result.h"
#include "device/cuda_trace.h"

namespace lapidary {
namespace {

// A CUDA context does not heal: an error ends the process.
void CheckCuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) DeviceFailed(fmt::format("{}: {}", what, cudaGetErrorString(error)));
}

class CudaGraph : public Graph {
 public:
  CudaGraph(cudaGraph_t graph, cudaStream_t stream) : stream_(stream) {
    CheckCuda(cudaGraphInstantiate(&executable_, graph, 0), "cudaGraphInstantiate");
    CheckCuda(cudaGraphDestroy(graph), "cudaGraphDestroy");
    CheckCuda(cudaGraphUpload(executable_, stream), "cudaGraphUpload");
  }
  ~CudaGraph() override { cudaGraphExecDestroy(executable_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;
  void Launch() override { CheckCuda(cudaGraphLaunch(executable_, stream_), "cudaGraphLaunch"); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t executable_ = nullptr;
};

class CudaCopyQueue : public CopyQueue {
 public:
  CudaCopyQueue() {
    CheckCuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  ~CudaCopyQueue() override { cudaStreamDestroy(stream_); }
  CudaCopyQueue(const CudaCopyQueue&) = delete;
  CudaCopyQueue& operator=(const CudaCopyQueue&) = delete;
  void CopyIn(void* to, const void* from, int64_t bytes) override {
    CheckCuda(
        cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_),
        "copy to the device");
    CheckCuda(cudaStreamSynchronize(stream_), "copy to the device");
  }

 private:
  cudaStream_t stream_ = nullptr;
};

class OpenedCudaDevice : public CudaDevice {
 public:
  OpenedCudaDevice(int ordinal, const cudaDeviceProp& properties) : name_(properties.name) {
    CheckCuda(cudaSetDevice(ordinal), "cudaSetDevice");
    CheckCuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    CheckCuda(cudaEventCreate(&start_), "cudaEventCreate");
    CheckCuda(cudaEventCreate(&stop_), "cudaEventCreate");
    for (cudaEvent_t& mark : marks_)
      CheckCuda(cudaEventCreateWithFlags(&mark, cudaEventDisableTiming), "cudaEventCreate");
  }
  ~OpenedCudaDevice() override {
    cudaEventDestroy(start_);
    cudaEventDestroy(stop_);
    for (const cudaEvent_t mark : marks_) cudaEventDestroy(mark);
    cudaStreamDestroy(stream_);
  }
  OpenedCudaDevice(const OpenedCudaDevice&) = delete;
  OpenedCudaDevice& operator=(const OpenedCudaDevice&) = delete;

  const std::string& name() const override { return name_; }
  bool is_host() const override { return false; }
  int64_t total_bytes() const override { return Memory().second; }
  int64_t free_bytes() const override { return Memory().first; }
  CUstream_st* stream() const override { return stream_; }

  void* Allocate(int64_t bytes) override {
    void* data = nullptr;
    // Even an empty tensor has an address of its own.
    const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(bytes > 0 ? bytes : 1));
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw StartupError(fmt::format("cannot allocate {} bytes on {}", bytes, name_));
    }
    CheckCuda(error, "cudaMalloc");
    return data;
  }
  void Free(void* data) override { CheckCuda(cudaFree(data), "cudaFree"); }

  void CopyIn(void* to, const void* from, int64_t bytes) override {
    CheckCuda(
        cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_),
        "copy to the device");
    Synchronize();
  }
  void CopyOut(void* to, const void* from, int64_t bytes) override {
    CheckQueue(
        cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_),
        "copy from the device");
    Synchronize();
  }
  void Fill(void* to, int byte, int64_t bytes) override {
    CheckCuda(cudaMemsetAsync(to, byte, static_cast<size_t>(bytes), stream_), "cudaMemset");
  }
  void Synchronize() override { CheckQueue(cudaStreamSynchronize(stream_), "synchronize"); }

  void* AllocateHost(int64_t bytes) override {
    void* data = nullptr;
    const cudaError_t error =
        cudaHostAlloc(&data, static_cast<size_t>(bytes > 0 ? bytes : 1), cudaHostAllocDefault);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw StartupError(fmt::format("cannot pin {} bytes of host memory", bytes));
    }
    CheckCuda(error, "cudaHostAlloc");
    return data;
  }
  void FreeHost(void* data) override { CheckCuda(cudaFreeHost(data), "cudaFreeHost"); }
  std::unique_ptr<CopyQueue> MakeCopyQueue() override { return std::make_unique<CudaCopyQueue>(); }
  void QueueCopyIn(void* to, const void* from, int64_t bytes) override {
    CheckCuda(
        cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_),
        "copy to the device");
  }
  void QueueCopyOut(void* to, const void* from, int64_t bytes) override {
    CheckQueue(
        cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_),
        "copy from the device");
  }
  uint64_t Mark() override {
    CheckCuda(cudaEventRecord(marks_[++newest_mark_ % marks_.size()], stream_), "cudaEventRecord");
    return newest_mark_;
  }
  void WaitFor(uint64_t mark) override {
    CheckQueue(cudaEventSynchronize(marks_[mark % marks_.size()]), "wait");
  }

  std::unique_ptr<Graph> Capture(const std::function<void()>& work) override {
    cudaGraph_t graph = nullptr;
    CheckCuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "begin capture");
    work();
    CheckCuda(cudaStreamEndCapture(stream_, &graph), "end capture");
    return std::make_unique<CudaGraph>(graph, stream_);
  }
  double Time(const std::function<void()>& work) override {
    CheckCuda(cudaEventRecord(start_, stream_), "cudaEventRecord");
    work();
    CheckCuda(cudaEventRecord(stop_, stream_), "cudaEventRecord");
    CheckCuda(cudaEventSynchronize(stop_), "cudaEventSynchronize");
    float ms = 0;
    CheckCuda(cudaEventElapsedTime(&ms, start_, stop_), "cudaEventElapsedTime");
    return static_cast<double>(ms);
  }

 private:
  // An error of queued work shows itself at a later call: the step is named by its mark.
  void CheckQueue(cudaError_t error, const char* what) const {
    CHECK(error == cudaSuccess, "{} behind mark {}: {}", what, newest_mark_,
          cudaGetErrorString(error));
  }
  static std::pair<int64_t, int64_t> Memory() {  // free, all
    size_t free = 0, total = 0;
    CheckCuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return {static_cast<int64_t>(free), static_cast<int64_t>(total)};
  }

  std::string name_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t start_ = nullptr, stop_ = nullptr;
  std::array<cudaEvent_t, 64> marks_{};
  uint64_t newest_mark_ = 0;
};

}  // namespace

int NumCudaDevices() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

std::unique_ptr<CudaDevice> OpenCudaDevice(int ordinal) {
  const int count = NumCudaDevices();
  if (ordinal >= count)
    throw StartupError(fmt::format(
        "there is no GPU {}: the CUDA driver shows {}; use --backend cpu", ordinal, count));
  cudaDeviceProp properties{};
  CheckCuda(cudaGetDeviceProperties(&properties, ordinal), "cudaGetDeviceProperties");
  if (properties.major != 9 || properties.minor != 0)
    throw StartupError(
        fmt::format("GPU {} is a {} (sm_{}{}); the CUDA backend is made for Hopper (sm_90); use "
                    "--backend cpu",
                    ordinal, properties.name, properties.major, properties.minor));
  AddCudaTrace();
  return std::make_unique<OpenedCudaDevice>(ordinal, properties);
}

}  // namespace lapidary
