#include "model/activations.h"

#include <algorithm>

namespace lapidary {

LayerWidths LayerWidths::Of(const ModelConfig& config) {
  LayerWidths widths;
  for (const LayerConfig& layer : config.layers) {
    const int64_t q = int64_t{config.num_heads} * layer.head_dim;
    // Room for V also in K=V layers: its values are made beside K.
    const int64_t kv = int64_t{2} * layer.num_kv_heads * layer.head_dim;
    widths.qkv = std::max(widths.qkv, q + kv);
    widths.attention = std::max(widths.attention, q);
    widths.gate_up = std::max(widths.gate_up, int64_t{2} * layer.mlp_width);
  }
  return widths;
}

Activations::Activations(Device& device, const ModelConfig& config, int64_t max_rows, DType dtype) {
  const LayerWidths widths = LayerWidths::Of(config);
  x = Buffer(device, max_rows, config.hidden, dtype);
  h = Buffer(device, max_rows, config.hidden, dtype);
  qkv = Buffer(device, max_rows, widths.qkv, dtype);
  o = Buffer(device, max_rows, widths.attention, dtype);
  gate_up = Buffer(device, max_rows, widths.gate_up, dtype);
  if (config.moe.num_experts > 0) {
    expert_in = Buffer(device, max_rows, config.hidden, dtype);
    expert_out = Buffer(device, max_rows, config.hidden, dtype);
    expert_ids = Buffer(device, max_rows, config.moe.top_k, DType::kI32);
    expert_weights = Buffer(device, max_rows, config.moe.top_k, DType::kF32);
  }
  if (config.ple_width > 0) {
    const int64_t ple_columns = int64_t{config.num_layers()} * config.ple_width;
    ple_gate = Buffer(device, max_rows, config.ple_width, dtype);
    ple = Buffer(device, max_rows, ple_columns, dtype);
    ple_tokens = Buffer(device, max_rows, ple_columns, dtype);
  }
}

int64_t Activations::Bytes(const ModelConfig& config, int64_t max_rows, DType dtype) {
  const LayerWidths widths = LayerWidths::Of(config);
  int64_t columns = int64_t{2} * config.hidden + widths.qkv + widths.attention + widths.gate_up;
  if (config.moe.num_experts > 0)
    columns += int64_t{2} * config.hidden + int64_t{2} * config.moe.top_k;
  if (config.ple_width > 0)
    columns += int64_t{2} * config.num_layers() * config.ple_width + config.ple_width;
  return max_rows * columns * SizeOf(dtype);
}

void Activations::Poison() const {
  for (const Buffer* buffer : {&x, &h, &qkv, &o, &gate_up, &expert_in, &expert_out, &expert_ids,
                               &expert_weights, &ple_gate, &ple, &ple_tokens})
    buffer->Poison();
}

}  // namespace lapidary
