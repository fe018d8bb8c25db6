// Device: the memory that tensors lie in and the queue that works on it. One thread uses it at a
// time. Allocation is for start-up.
#ifndef LAPIDARY_DEVICE_DEVICE_H_
#define LAPIDARY_DEVICE_DEVICE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "device/tensor.h"

namespace lapidary {

// Work recorded once and replayed in the same order with the same arguments.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void Launch() = 0;  // queues all of it
};

// Copies beside the device's queue, for one thread of its own.
class CopyQueue {
 public:
  virtual ~CopyQueue() = default;
  // `from` is AllocateHost's. Returns when it is done.
  virtual void CopyIn(void* to, const void* from, int64_t bytes) = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual const std::string& name() const = 0;
  // Tensors lie in memory that the host reads and writes.
  virtual bool is_host() const = 0;
  // Of its memory: all of it, and what can still be had.
  virtual int64_t total_bytes() const = 0;
  virtual int64_t free_bytes() const = 0;
  // Aligned to 256 bytes. Throws StartupError when the memory cannot be had.
  virtual void* Allocate(int64_t bytes) = 0;
  virtual void Free(void* data) = 0;

  // Ordered with the queued work. `from` may be reused when CopyIn returns; CopyOut returns with
  // the data.
  virtual void CopyIn(void* to, const void* from, int64_t bytes) = 0;
  virtual void CopyOut(void* to, const void* from, int64_t bytes) = 0;
  virtual void Fill(void* to, int byte, int64_t bytes) = 0;
  virtual void Synchronize() = 0;

  // Host memory that the device reaches by itself. Thread-safe, as MakeCopyQueue.
  virtual void* AllocateHost(int64_t bytes) = 0;
  virtual void FreeHost(void* data) = 0;
  virtual std::unique_ptr<CopyQueue> MakeCopyQueue() = 0;
  // Queues the copy and returns; `from`, of AllocateHost, stays as it is until the queue is past.
  virtual void QueueCopyIn(void* to, const void* from, int64_t bytes) = 0;
  // Likewise; `to`, of AllocateHost, has the data when a later mark is past.
  virtual void QueueCopyOut(void* to, const void* from, int64_t bytes) = 0;
  // A point of the queue, and waiting until the work before it is done. Old marks may wait longer.
  virtual uint64_t Mark() = 0;
  virtual void WaitFor(uint64_t mark) = 0;

  // Queues `work` into a graph instead of running it. It must not allocate, copy out or
  // synchronise.
  virtual std::unique_ptr<Graph> Capture(const std::function<void()>& work) = 0;
  // Milliseconds that the work queued by `work` takes on the device.
  virtual double Time(const std::function<void()>& work) = 0;
};

// Memory of a device with an owner.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(Device& device, int64_t bytes)
      : data_(device.Allocate(bytes), Deleter{&device}), bytes_(bytes) {}
  void* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }

 private:
  struct Deleter {
    Device* device;
    void operator()(void* data) const { device->Free(data); }
  };
  std::unique_ptr<void, Deleter> data_{nullptr, Deleter{nullptr}};
  int64_t bytes_ = 0;
};

// Host memory with an owner, of AllocateHost.
class HostMemory {
 public:
  HostMemory() = default;
  HostMemory(Device& device, int64_t bytes)
      : data_(device.AllocateHost(bytes), Deleter{&device}), bytes_(bytes) {}
  void* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }

 private:
  struct Deleter {
    Device* device;
    void operator()(void* data) const { device->FreeHost(data); }
  };
  std::unique_ptr<void, Deleter> data_{nullptr, Deleter{nullptr}};
  int64_t bytes_ = 0;
};

// The CPU and the memory of this process. Thread-safe.
Device& HostDevice();

}  // namespace lapidary

#endif  // LAPIDARY_DEVICE_DEVICE_H_
