// Loading a checkpoint folder: config.json and safetensors (one file or shards with an index),
// mapped, every tensor accounted for, or refused in one sentence that names file, tensor and rule.
#ifndef LAPIDARY_MODEL_LOADER_H_
#define LAPIDARY_MODEL_LOADER_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>

#include "base/result.h"
#include "model/config.h"
#include "model/weights.h"
#include "ops/ops.h"

namespace lapidary {

// A loaded model. Owns the mappings, or the memory, its tensors point into.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  std::shared_ptr<Ops> ops;  // on whose device the weights lie; null: mapped, for any CPU's
  ModelConfig config;
  ModelWeights weights;
  uint64_t weight_bytes = 0;  // of tensors used
};

struct LoadOptions {
  // Reads each weight once before ready, so that a truncated file is found and the first request is
  // warm.
  bool touch_all_bytes = true;
  std::function<void(uint64_t done_bytes, uint64_t total_bytes)> progress;  // may be empty
  // Copies the weights to the device of these; null: they stay mapped.
  std::shared_ptr<Ops> ops;
};

// Errors name the file, the tensor and the rule, and say what to do.
Result<std::unique_ptr<Checkpoint>> LoadCheckpoint(const std::filesystem::path& model_dir,
                                                   const LoadOptions& options);

// --load-format dummy: random weights from config.json alone, scaled so that logits are finite and
// experts evenly used. Each element is a function of (tensor name, element index) only: the same
// bits on every backend. They are made by `ops` on its device; null: by CPU ops of their own.
// Refused with both byte counts when it would not fit into available_bytes.
Result<std::unique_ptr<Checkpoint>> MakeDummyCheckpoint(const std::filesystem::path& model_dir,
                                                        uint64_t available_bytes,
                                                        std::shared_ptr<Ops> ops = nullptr);

// Bytes of all weights that the text model (or drafter) uses, from its config alone, with every
// product checked. Used by `plan`, by the dummy loader and by the memory formula.
uint64_t WeightBytes(const ModelConfig& config);

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_LOADER_H_
