// HostCopy: a device's tensor as the host reads it; on the CPU the tensor itself.
#ifndef LAPIDARY_MODEL_HOST_COPY_H_
#define LAPIDARY_MODEL_HOST_COPY_H_

#include "device/device.h"
#include "device/tensor.h"

namespace lapidary {

class HostCopy {
 public:
  // Waits for the queued work. Valid until the next call. The tensor is contiguous.
  Tensor Of(Device& device, const Tensor& tensor) {
    if (device.is_host()) return tensor;
    CHECK(tensor.row_stride == tensor.cols(), "rows of {} elements, {} apart", tensor.cols(),
          tensor.row_stride);
    const int64_t bytes = tensor.num_elements() * SizeOf(tensor.dtype);
    if (memory_.bytes() < bytes) memory_ = HostMemory(device, bytes);
    device.CopyOut(memory_.data(), tensor.data, bytes);
    Tensor copy = tensor;
    copy.data = memory_.data();
    return copy;
  }

 private:
  HostMemory memory_;
};

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_HOST_COPY_H_
