// TensorSpec: every tensor that a checkpoint of this config must or may hold, with its shape.
// Source: GEMMA4.md section 10.
#ifndef LAPIDARY_MODEL_TENSOR_SPEC_H_
#define LAPIDARY_MODEL_TENSOR_SPEC_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"

namespace lapidary {

enum class TensorRole : uint8_t {
  kUsed,    // must be there
  kUnused,  // may be there, is ignored: K and V of KV-shared layers
  kTower,   // must be there, shape-checked, not loaded
};

struct TensorSpec {
  std::string name;  // as published
  std::vector<int64_t> shape;
  std::string_view dtype = "BF16";
  TensorRole role = TensorRole::kUsed;
  // Clip scalars may have shape [] or [1].
  bool MatchesShape(const std::vector<int64_t>& other) const;
  uint64_t bytes() const;  // UINT64_MAX when the product overflows
};

// Row blocks of one matrix are neighbours.
std::vector<TensorSpec> TensorSpecs(const ModelConfig& config);

// The published name of a tensor that a re-exported checkpoint calls otherwise: without the leading
// `model.`, or with `language_model.model.` in place of `model.language_model.`.
std::string PublishedName(std::string_view name, bool is_drafter);

// "[2048, 256]"
std::string ShapeText(const std::vector<int64_t>& shape);

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_TENSOR_SPEC_H_
