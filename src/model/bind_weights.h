// Binds named tensors to the fields of ModelWeights: shared by the loader of checkpoints and the
// maker of dummy weights.
#ifndef LAPIDARY_MODEL_BIND_WEIGHTS_H_
#define LAPIDARY_MODEL_BIND_WEIGHTS_H_

#include <map>
#include <string>

#include "model/config.h"
#include "model/weights.h"

namespace lapidary {

// `tensors` holds all kText tensors of TensorSpecs(config) under their published names, with the
// spec's shapes.
ModelWeights BindWeights(const ModelConfig& config, const std::map<std::string, Tensor>& tensors);

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_BIND_WEIGHTS_H_
