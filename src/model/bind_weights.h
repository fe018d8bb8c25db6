// BindWeights: puts named tensors where the forward pass reads them.
#ifndef LAPIDARY_MODEL_BIND_WEIGHTS_H_
#define LAPIDARY_MODEL_BIND_WEIGHTS_H_

#include <functional>
#include <string>

#include "device/device.h"
#include "model/config.h"
#include "model/weights.h"

namespace lapidary {

// `find` gives the tensor of a published name, on `device`; every used name of TensorSpecs(config)
// is there with its shape.
ModelWeights BindWeights(const ModelConfig& config,
                         const std::function<Tensor(const std::string& name)>& find,
                         Device& device);

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_BIND_WEIGHTS_H_
