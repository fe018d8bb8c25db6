#include "app/bench/bound.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

#include "model/gemma4.h"
#include "model/tensor_spec.h"

namespace lapidary {
namespace {

// Of "model.language_model.layers.7.mlp..."; -1: of no layer.
int LayerOf(std::string_view name) {
  constexpr std::string_view kLayers = ".layers.";
  const size_t at = name.find(kLayers);
  int layer = -1;
  if (at != std::string_view::npos)
    std::from_chars(name.data() + at + kLayers.size(), name.data() + name.size(), layer);
  return layer;
}

bool Contains(const TensorSpec& spec, std::string_view part) {
  return spec.name.find(part) != std::string::npos;
}

}  // namespace

double StepWork::SecondsAt(const Ceilings& ceilings) const {
  const auto seconds = [&](const Work& work) {
    return std::max(work.bytes / (ceilings.read_gb_per_s * 1e9),
                    work.flops / (ceilings.tflop_per_s * 1e12));
  };
  return seconds(products) + seconds(attention);
}

ModelWork::ModelWork(const ModelConfig& config, DType kv_dtype, bool folds, bool fast_prefill)
    : num_experts_(config.moe.num_experts), top_k_(config.moe.top_k) {
  if (const CentroidConfig& centroids = config.centroids; centroids.num_centroids > 0)
    head_share_ = 1.0 * centroids.top_k / centroids.num_centroids;
  const int last_owner =
      std::max(config.donor(LayerKind::kSliding), config.donor(LayerKind::kFull));
  const std::vector<KvLayerShape> shapes = KvShapes(config, folds);
  for (int i = 0; i < config.num_layers(); ++i) {
    const LayerConfig& layer = config.layers[static_cast<size_t>(i)];
    Layer& work = layers_.emplace_back();
    const KvLayerShape& kv = shapes[static_cast<size_t>(i)];
    work.kv_bytes = 1.0 * kv.num_kv_heads * KvRowColumns(kv.head_dim, kv.fold_columns) *
                    static_cast<double>(SizeOf(kv_dtype));
    work.key_flops = 4.0 * config.num_heads * layer.head_dim;
    work.window = layer.kind == LayerKind::kSliding ? config.window : 0;
    work.of_prompts = !fast_prefill || i <= last_owner;
  }
  for (const TensorSpec& spec : TensorSpecs(config)) {
    if (spec.role != TensorRole::kUsed) continue;
    const auto bytes = static_cast<double>(spec.bytes());
    const auto rows = static_cast<double>(spec.shape.front());
    if (Contains(spec, "embed_tokens_per_layer")) {
      row_bytes_ += bytes / rows;
    } else if (Contains(spec, "embed_tokens.")) {
      head_bytes_ += bytes;  // it is the head too
    } else if (Contains(spec, "token_ordering")) {
      continue;
    } else if (Contains(spec, ".experts.")) {
      expert_bytes_ += bytes / num_experts_ / config.num_layers();
    } else if (const int layer = LayerOf(spec.name); layer >= 0) {
      layers_[static_cast<size_t>(layer)].weight_bytes += bytes;
    } else {
      outside_bytes_ += bytes;
    }
  }
}

double ModelWork::Visible(const Layer& layer, double context) const {
  return layer.window > 0 ? std::min<double>(context, layer.window) : context;
}

StepWork ModelWork::Decode(double num_sequences, double rows_a_sequence, double context) const {
  const double rows = num_sequences * rows_a_sequence;
  // The share that is read by somebody, of what each row reads a share of.
  const auto chosen = [rows](double share) { return 1 - std::pow(1 - share, rows); };
  const double experts = num_experts_ == 0 ? 0 : num_experts_ * chosen(1.0 * top_k_ / num_experts_);
  StepWork step;
  // A weight has two bytes, and is a multiplication and an addition a row.
  step.products = {outside_bytes_ + head_bytes_ * chosen(head_share_) + rows * row_bytes_,
                   rows * (outside_bytes_ + head_bytes_ * head_share_)};
  for (const Layer& layer : layers_) {
    const double keys = Visible(layer, context);
    step.products.bytes += layer.weight_bytes + experts * expert_bytes_;
    step.products.flops += rows * (layer.weight_bytes + top_k_ * expert_bytes_);
    step.attention.bytes += num_sequences * keys * layer.kv_bytes;
    step.attention.flops += rows * keys * layer.key_flops;
  }
  return step;
}

StepWork ModelWork::Prefill(int prompt_length) const {
  const double length = prompt_length;
  StepWork step;
  step.products.flops = length * outside_bytes_ + head_bytes_;
  for (const Layer& layer : layers_) {
    const double rows = layer.of_prompts ? length : 1, seen = Visible(layer, length);
    // Row t sees min(t, window) keys.
    const double pairs = layer.of_prompts ? seen * (seen + 1) / 2 + (length - seen) * seen : seen;
    step.products.flops += rows * (layer.weight_bytes + top_k_ * expert_bytes_);
    step.attention.flops += pairs * layer.key_flops;
  }
  return step;
}

RunBound BoundOf(const RunShape& run, const ModelWork& target, const ModelWork* drafter,
                 const Ceilings& ceilings) {
  RunBound bound;
  double output = 0, decoded = 0, context = 0;
  for (const auto& [prompt, answer] : run.lengths) {
    bound.prefill_s += target.Prefill(prompt).SecondsAt(ceilings);
    output += answer;
    decoded += answer - 1;
    context += answer * (prompt + answer / 2.0);
  }
  context /= output;
  const StepWork verify = target.Decode(run.num_sequences, 1 + run.drafts_a_step, context);
  double step_s = verify.SecondsAt(ceilings);
  bound.step_bytes = verify.bytes();
  if (drafter != nullptr && run.drafts_a_step > 0) {
    const StepWork draft = drafter->Decode(run.num_sequences, 1, context);
    step_s += run.drafts_a_step * draft.SecondsAt(ceilings);
    bound.step_bytes += run.drafts_a_step * draft.bytes();
  }
  bound.step_ms = step_s * 1e3;
  bound.decode_tok_per_s = run.accept_length / step_s;
  const double num_steps = decoded / (run.num_sequences * run.accept_length);
  bound.tok_per_s = output / (bound.prefill_s + num_steps * step_s);
  return bound;
}

}  // namespace lapidary
