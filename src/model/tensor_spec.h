// TensorSpec: every tensor a checkpoint of a config holds: name, shape, dtype. GEMMA4.md 10.
#ifndef LAPIDARY_MODEL_TENSOR_SPEC_H_
#define LAPIDARY_MODEL_TENSOR_SPEC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"

namespace lapidary {

enum class TensorUse : uint8_t {
  kText,     // required and used
  kIgnored,  // K, V of a KV-shared layer: may be absent, shape-checked if present, never read
  kTower,    // vision or audio: required, shape-checked, not loaded yet
};

struct TensorSpec {
  std::string name;  // published name
  std::vector<int64_t> shape;
  const char* dtype = "BF16";
  TensorUse use = TensorUse::kText;
  bool scalar_or_one = false;  // clip bounds: [] or [1]

  int64_t num_elements() const {
    int64_t product = 1;
    for (const int64_t dimension : shape) product *= dimension;
    return product;
  }
};

std::vector<TensorSpec> TensorSpecs(const ModelConfig& config);

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_TENSOR_SPEC_H_
