// PlacedWeights: memory of a device for the weights of a model. Row blocks of one matrix (Q, K, V;
// gate, up) lie behind one another, so that they are one matrix to whoever multiplies by it.
#ifndef LAPIDARY_MODEL_PLACED_WEIGHTS_H_
#define LAPIDARY_MODEL_PLACED_WEIGHTS_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/loader.h"
#include "model/tensor_spec.h"

namespace lapidary {

// A spec as a contiguous tensor over memory the caller owns.
Tensor TensorOf(const TensorSpec& spec, void* data);

class PlacedWeights {
 public:
  PlacedWeights() = default;
  // The used ones of `specs`, in their order. Throws StartupError when the memory cannot be had.
  PlacedWeights(const std::vector<TensorSpec>& specs, Device& device);
  Tensor Find(const std::string& name) const;

 private:
  DeviceMemory memory_;
  std::map<std::string, Tensor> tensors_;
};

// A checkpoint whose weights lie in memory of its own.
class PlacedCheckpoint : public Checkpoint {
 public:
  // `ops` has the device; its weights are to be filled and bound.
  PlacedCheckpoint(ModelConfig model_config, const std::vector<TensorSpec>& specs,
                   std::shared_ptr<Ops> on);
  void Bind();

  PlacedWeights placed;
};

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_PLACED_WEIGHTS_H_
