// Activations: the buffers of one forward pass, allocated once for the largest step.
#ifndef LAPIDARY_MODEL_ACTIVATIONS_H_
#define LAPIDARY_MODEL_ACTIVATIONS_H_

#include <cstdint>

#include "device/device.h"
#include "model/config.h"

namespace lapidary {

// A [max rows, max columns] buffer from which a step takes the [rows, columns] it needs.
class Buffer {
 public:
  Buffer() = default;
  // The device must outlive it.
  Buffer(Device& device, int64_t max_rows, int64_t max_cols, DType dtype)
      : max_elements_(max_rows * max_cols),
        dtype_(dtype),
        device_(&device),
        memory_(device, max_elements_ * SizeOf(dtype)) {}
  Tensor View(int64_t rows, int64_t cols) const {
    CHECK(rows * cols <= max_elements_, "[{},{}] of {} elements", rows, cols, max_elements_);
    return MakeTensor(memory_.data(), dtype_, rows, cols);
  }
  // Fills it with the pattern of NaN.
  void Poison() const {
    if (device_ != nullptr) device_->Fill(memory_.data(), 0xff, memory_.bytes());
  }

 private:
  int64_t max_elements_ = 0;
  DType dtype_ = DType::kF32;
  Device* device_ = nullptr;
  DeviceMemory memory_;
};

// Column counts of the buffers a layer uses, from the config: the largest over the layers.
struct LayerWidths {
  int64_t qkv = 0, attention = 0, gate_up = 0;
  static LayerWidths Of(const ModelConfig& config);
};

struct Activations {
  Buffer x, h, qkv, o, gate_up;       // [T,D] [T,D] [T,(H+2Hkv)Dh] [T,H*Dh] [T,2F]
  Buffer expert_in, expert_out;       // [T,D] [T,D], MoE only
  Buffer expert_ids, expert_weights;  // [T,K]
  Buffer ple_gate, ple;               // [T,P] [T,L*P]
  Buffer ple_tokens;                  // [T,L*P]

  Activations(Device& device, const ModelConfig& config, int64_t max_rows, DType dtype);
  static int64_t Bytes(const ModelConfig& config, int64_t max_rows, DType dtype);
  void Poison() const;
};

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_ACTIVATIONS_H_
