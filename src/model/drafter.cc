#include "model/drafter.h"

#include <numeric>

#include "model/decoder_layer.h"

namespace lapidary {

struct Drafter::Workspace {
  Activations a;
  Buffer in;        // [B,2*target D]: embedding, then state
  Buffer y;         // [B,D]
  Buffer identity;  // [max rows] i32: 0, 1, 2, ...
  std::vector<Layer> layers;

  Workspace(Device& device, const ModelConfig& config, int max_rows, DType dtype)
      : a(device, config, max_rows, dtype),
        in(device, max_rows, int64_t{2} * config.target_hidden, dtype),
        y(device, max_rows, config.hidden, DType::kF32),
        identity(device, max_rows, 1, DType::kI32) {
    std::vector<int32_t> numbers(static_cast<size_t>(max_rows));
    std::iota(numbers.begin(), numbers.end(), 0);
    device.CopyIn(identity.View(max_rows, 1).data, numbers.data(), max_rows * SizeOf(DType::kI32));
  }
};

Drafter::Drafter(const ModelConfig& target_config, const ModelWeights& target_weights,
                 const ModelConfig& config, const ModelWeights& weights, Ops& ops, KvArena& arena,
                 const Limits& limits)
    : target_config_(target_config),
      target_weights_(target_weights),
      config_(config),
      weights_(weights),
      ops_(ops),
      limits_(limits),
      workspace_(
          std::make_unique<Workspace>(ops.device(), config, limits.max_rows, limits.activations)) {
  CHECK(limits.logits.rows() >= limits.max_rows && limits.logits.cols() == config.vocab_size,
        "logits [{},{}] lent for {} rows of {}", limits.logits.rows(), limits.logits.cols(),
        limits.max_rows, config.vocab_size);
  for (int i = 0; i < config.num_layers(); ++i) {
    const int donor = target_config.donor(config.layers[static_cast<size_t>(i)].kind);
    workspace_->layers.push_back(
        MakeLayer(config, weights, i, arena.layer(donor),
                  target_weights.layers.at(static_cast<size_t>(donor)).k_norm));
  }
}

Drafter::~Drafter() = default;

void Drafter::Poison() {
  const Workspace& ws = *workspace_;
  ws.a.Poison();
  for (const Buffer* buffer : {&ws.in, &ws.y}) buffer->Poison();
}

DraftOutput Drafter::Step(Tensor host_tokens, Tensor hidden, const RowSet& host_rows) {
  Batch batch;
  batch.tokens = host_tokens;
  batch.rows = host_rows;
  batch = ops_.PlaceBatch(batch);
  return StepPlaced(batch.tokens, hidden, batch.rows);
}

DraftOutput Drafter::StepPlaced(Tensor tokens, Tensor hidden, const RowSet& rows) {
  Workspace& ws = *workspace_;
  const int64_t b = tokens.rows();
  const int64_t target_hidden = config_.target_hidden;
  CHECK(b > 0 && b <= limits_.max_rows && rows.num_rows() == b && hidden.rows() == b &&
            hidden.cols() == target_hidden,
        "{} drafting rows of {}", b, limits_.max_rows);
  const Tensor in = ws.in.View(b, 2 * target_hidden);
  ops_.Embed(in.Cols(0, target_hidden), target_weights_.embed, tokens,
             target_config_.embed_scale());
  ops_.GatherRows(in.Cols(target_hidden, target_hidden), hidden, ws.identity.View(b, 1));

  const Tensor x = ws.a.x.View(b, config_.hidden);
  ops_.Linear(x, in, weights_.pre_projection);
  ops_.RmsNorm(ws.a.h.View(b, config_.hidden), x, weights_.layers[0].input_norm, config_.norm_eps,
               config_.hidden);
  for (size_t i = 0; i < ws.layers.size(); ++i) {
    const Tensor next = i + 1 < ws.layers.size() ? weights_.layers[i + 1].input_norm : Tensor{};
    DecoderLayer(ops_, ws.layers[i], rows, {}, ws.a, Tensor{}, next);
  }
  const Tensor y = ws.y.View(b, config_.hidden);
  ops_.RmsNorm(y, x, weights_.final_norm, config_.norm_eps, config_.hidden);
  DraftOutput out{limits_.logits.Rows(0, b), hidden};
  ops_.Linear(out.hidden, y, weights_.post_projection);
  if (weights_.centroids.empty())
    ops_.Linear(out.logits, y, {weights_.embed});
  else
    ops_.CentroidLogits(out.logits, y, weights_.centroids, weights_.token_ordering, weights_.embed,
                        config_.centroids.top_k);
  return out;
}

}  // namespace lapidary
