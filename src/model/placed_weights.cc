#include "model/placed_weights.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "model/bind_weights.h"

namespace lapidary {
namespace {

constexpr uint64_t kAlignment = 256;

uint64_t RoundUp(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

Tensor TensorOf(const TensorSpec& spec, void* data) {
  Tensor tensor;
  tensor.data = data;
  tensor.dtype = spec.dtype == "I64" ? DType::kI64 : DType::kBf16;
  tensor.rank = static_cast<int>(spec.shape.size());
  std::copy(spec.shape.begin(), spec.shape.end(), tensor.shape.begin());
  tensor.row_stride = tensor.cols();
  return tensor;
}

PlacedWeights::PlacedWeights(const std::vector<TensorSpec>& specs, Device& device) {
  uint64_t bytes = 0;
  for (const TensorSpec& spec : specs)
    if (spec.role == TensorRole::kUsed) bytes += RoundUp(spec.bytes());
  memory_ = DeviceMemory(device, static_cast<int64_t>(bytes));
  char* at = static_cast<char*>(memory_.data());
  // Fewer page faults; whether it works does not matter.
  if (device.is_host()) {
    constexpr uintptr_t kPage = 4096;
    const uintptr_t past_page = reinterpret_cast<uintptr_t>(at) % kPage;
    if (bytes > 2 * kPage)
      madvise(at + (kPage - past_page) % kPage, bytes - 2 * kPage, MADV_HUGEPAGE);
  }
  for (const TensorSpec& spec : specs) {
    if (spec.role != TensorRole::kUsed) continue;
    tensors_.emplace(spec.name, TensorOf(spec, at));
    at += RoundUp(spec.bytes());
  }
}

Tensor PlacedWeights::Find(const std::string& name) const {
  const auto found = tensors_.find(name);
  CHECK(found != tensors_.end(), "no tensor {}", name);
  return found->second;
}

PlacedCheckpoint::PlacedCheckpoint(ModelConfig model_config, const std::vector<TensorSpec>& specs,
                                   std::shared_ptr<Ops> on) {
  config = std::move(model_config);
  weight_bytes = WeightBytes(config);
  ops = std::move(on);
  placed = PlacedWeights(specs, ops->device());
}

void PlacedCheckpoint::Bind() {
  weights = BindWeights(
      config, [this](const std::string& name) { return placed.Find(name); }, ops->device());
}

}  // namespace lapidary
