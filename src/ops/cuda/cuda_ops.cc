#include "ops/cuda/cuda_ops.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "ops/cuda/cuda_backend.h"

namespace lapidary {

std::unique_ptr<Ops> MakeCudaOps(std::unique_ptr<CudaDevice> device) {
  return std::make_unique<cuda::CudaBackend>(std::move(device));
}

namespace cuda {

CudaBackend::CudaBackend(std::unique_ptr<CudaDevice> device)
    : device_(std::move(device)),
      tally_(*device_, int64_t{sizeof(ExpertTally)}),
      inputs_(*device_) {
  device_->Fill(tally_.data(), 0, tally_.bytes());
}

void* CudaBackend::Scratch(int64_t bytes) {
  const int64_t have = scratch_.empty() ? 0 : scratch_.back().bytes();
  if (bytes > have) scratch_.emplace_back(*device_, std::max(bytes, 2 * have));
  return scratch_.back().data();
}

const float* CudaBackend::Frequencies(const RopeSpec& rope, int head_dim) {
  DeviceMemory& memory = frequencies_[{rope.theta, rope.rotary_factor, head_dim}];
  if (memory.data() == nullptr) {
    std::vector<float> frequencies(static_cast<size_t>(rope.rotary_factor * head_dim / 2));
    for (size_t j = 0; j < frequencies.size(); ++j)
      frequencies[j] =
          1.0f / static_cast<float>(std::pow(rope.theta, static_cast<double>(2 * j) / head_dim));
    const auto bytes = static_cast<int64_t>(frequencies.size() * sizeof(float));
    memory = DeviceMemory(*device_, bytes);
    device_->CopyIn(memory.data(), frequencies.data(), bytes);
  }
  return static_cast<const float*>(memory.data());
}

const kernels::TensorMap& CudaBackend::Map(const MapKey& key,
                                           const std::function<kernels::TensorMap()>& make) {
  const auto found = maps_.find(key);
  return found != maps_.end() ? found->second : maps_.emplace(key, make()).first->second;
}

}  // namespace cuda
}  // namespace lapidary
