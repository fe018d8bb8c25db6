// Dummy weights: numbers from a counter, for runs that need a model's shape and not its knowledge.
#include "model/dummy.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "model/loader.h"
#include "model/placed_weights.h"
#include "ops/cpu/cpu_ops.h"

namespace lapidary {
namespace {

// FNV-1a of the published name.
uint64_t NameKey(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

// Uniform on [centre - half, centre + half].
struct Spread {
  float centre = 0, half = 0;
};

Spread Between(double low, double high) {
  return {static_cast<float>((low + high) / 2), static_cast<float>((high - low) / 2)};
}
Spread WithDeviation(double deviation) {
  return {0, static_cast<float>(deviation * std::sqrt(3.0))};
}

Spread SpreadOf(const TensorSpec& spec) {
  const std::string_view name = spec.name;
  const auto has = [&](std::string_view part) { return name.find(part) != name.npos; };
  const double root = spec.shape.empty() ? 1 : std::sqrt(static_cast<double>(spec.shape.back()));
  if (has("layer_scalar")) return Between(0.6, 1.1);
  if (has("k_norm")) return Between(1.3 / root, 2.9 / root);
  if (has("q_norm")) return Between(0.8, 1.2);
  if (has("post_attention_layernorm")) return Between(0.05, 0.15);
  if (name == "model.norm.weight" || name == "model.language_model.norm.weight")
    return Between(3.0, 5.0);
  if (has("norm") || has("per_expert_scale") || has("router.scale")) return Between(0.5, 1.5);
  return WithDeviation(1.0 / root);
}

// A permutation of 0..count-1 that spreads neighbours apart: i times a number prime to count.
void FillOrdering(const Tensor& out, Device& device) {
  const int64_t count = out.num_elements();
  int64_t factor = std::max<int64_t>(1, count * 5 / 8);
  while (std::gcd(factor, count) != 1) ++factor;
  std::vector<int64_t> ids(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) ids[static_cast<size_t>(i)] = i * factor % count;
  device.CopyIn(out.data, ids.data(), count * SizeOf(DType::kI64));
}

}  // namespace

DummyRule DummyRuleOf(const TensorSpec& spec) {
  const Spread spread = SpreadOf(spec);
  return {NameKey(spec.name), spread.centre, spread.half / 32767.5f};
}

Result<std::unique_ptr<Checkpoint>> MakeDummyCheckpoint(const std::filesystem::path& model_dir,
                                                        uint64_t available_bytes,
                                                        std::shared_ptr<Ops> ops) {
  auto config = ReadModelConfig(model_dir);
  if (!config.ok()) return config.error();
  const uint64_t need = WeightBytes(config.value());
  if (need > available_bytes)
    return Error{fmt::format("dummy weights of {} need {} bytes, {} bytes are available",
                             (model_dir / "config.json").string(), need, available_bytes),
                 "", ""};
  if (ops == nullptr) ops = MakeCpuOps(0);
  const std::vector<TensorSpec> specs = TensorSpecs(config.value());
  auto checkpoint = std::make_unique<PlacedCheckpoint>(std::move(config).value(), specs, ops);
  for (const TensorSpec& spec : specs) {
    if (spec.role != TensorRole::kUsed) continue;
    const Tensor tensor = checkpoint->placed.Find(spec.name);
    if (tensor.dtype == DType::kI64)
      FillOrdering(tensor, ops->device());
    else
      ops->FillDummy(tensor, DummyRuleOf(spec));
  }
  ops->device().Synchronize();
  checkpoint->Bind();
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

}  // namespace lapidary
