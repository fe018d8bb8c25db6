#include "model/gemma4.h"

#include <fmt/core.h>

#include <cmath>

#include "base/result.h"
#include "model/decoder_layer.h"

namespace lapidary {
namespace {

// The last layer that owns K and V; later ones only read (GEMMA4.md 3.3).
int LastKvLayer(const ModelConfig& config) {
  int last = config.num_layers() - 1;
  while (last > 0 && !config.layers[static_cast<size_t>(last)].owns_kv) --last;
  return last;
}

// Pages of one sliding layer, all of a page's bytes its own.
LayerKv ScratchLike(const LayerKv& kv, int32_t num_pages) {
  LayerKv scratch = kv;
  scratch.base = nullptr;
  scratch.offset = 0;
  scratch.page_bytes = scratch.slab_bytes = kv.num_kv_heads * kv.head_bytes();
  scratch.pages_per_slab = 1;
  scratch.num_pages = num_pages;
  return scratch;
}

// The columns of a full layer's heads that RoPE rotates.
int RotatedColumns(const ModelConfig& config, const LayerConfig& layer) {
  return 2 * static_cast<int>(config.full_rope.rotary_factor * layer.head_dim / 2);
}

bool IsFoldable(const ModelConfig& config, const LayerConfig& layer) {
  const int rotated = RotatedColumns(config, layer);
  return layer.k_eq_v && rotated > 0 && rotated < layer.head_dim;
}

}  // namespace

KvFoldChoice ChooseKvFold(const ModelConfig& config, KvFold fold, bool on_gpu) {
  if (fold == KvFold::kOff) return {false, "as asked"};
  const char* reason = nullptr;
  bool has_full = false;
  for (const LayerConfig& layer : config.layers) {
    if (layer.kind != LayerKind::kFull || !layer.owns_kv) continue;
    has_full = true;
    if (!IsFoldable(config, layer))
      reason = "its full layers have values of their own";
    else if (on_gpu && (layer.head_dim != kGpuFoldHeadDim ||
                        RotatedColumns(config, layer) != kGpuFoldColumns))
      reason = "GPU kernels fold heads of 512 columns of which 128 rotate";
  }
  if (!has_full) reason = "it has no full layers";
  if (reason != nullptr && fold == KvFold::kOn)
    throw StartupError(fmt::format("--kv-fold on: the model's cache cannot be folded: {}", reason));
  if (reason != nullptr) return {false, reason};
  if (fold == KvFold::kAuto && !on_gpu) return {false, "folded by default on a GPU only"};
  return {true, "its full layers' values are their keys before the norm"};
}

std::vector<KvLayerShape> KvShapes(const ModelConfig& config, bool folds) {
  std::vector<KvLayerShape> shapes;
  for (const LayerConfig& layer : config.layers) {
    const bool full = layer.kind == LayerKind::kFull;
    shapes.push_back({full, layer.owns_kv, layer.num_kv_heads, layer.head_dim,
                      folds && full ? RotatedColumns(config, layer) : 0});
  }
  return shapes;
}

struct Gemma4::Workspace {
  Activations a;
  // Per-layer inputs of the rows that go on, for the layers from last_kv_layer on; the other rows
  // never need them.
  Buffer kept_ple, kept_ple_tokens, kept_embedding;
  Buffer hidden, logits;   // f32
  Buffer ids, output_ids;  // i32
  Buffer scratch;          // sliding K and V of the step's chunks, one layer
  std::vector<Layer> layers;
  int last_kv_layer = 0;

  Workspace(Device& device, const ModelConfig& config, const Limits& limits)
      : a(device, config, limits.max_rows, limits.activations),
        hidden(device, limits.max_output_rows, config.hidden, DType::kF32),
        logits(device, limits.max_output_rows, config.vocab_size, DType::kF32),
        ids(device, limits.max_rows, 1, DType::kI32),
        output_ids(device, limits.max_output_rows, 1, DType::kI32),
        last_kv_layer(LastKvLayer(config)) {
    if (config.ple_width == 0) return;
    const int64_t columns = int64_t{config.num_layers()} * config.ple_width;
    kept_ple = Buffer(device, limits.max_output_rows, columns, limits.activations);
    kept_ple_tokens = Buffer(device, limits.max_output_rows, columns, limits.activations);
    kept_embedding = Buffer(device, limits.max_output_rows, config.hidden, limits.activations);
  }
};

Gemma4::Gemma4(const ModelConfig& config, const ModelWeights& weights, Ops& ops, KvArena& arena,
               const Limits& limits)
    : config_(config),
      weights_(weights),
      ops_(ops),
      limits_(limits),
      workspace_(std::make_unique<Workspace>(ops.device(), config, limits)) {
  LayerKv scratch;
  for (int i = 0; i < config.num_layers(); ++i) {
    const LayerConfig& layer = config.layers[static_cast<size_t>(i)];
    const LayerKv kv = arena.layer(layer.kv_layer);
    if (layer.kind == LayerKind::kSliding && scratch.base == nullptr) {
      scratch = ScratchLike(kv, limits.max_scratch_pages);
      workspace_->scratch = Buffer(ops.device(), limits.max_scratch_pages,
                                   scratch.page_bytes / SizeOf(kv.dtype), kv.dtype);
      scratch.base = static_cast<char*>(workspace_->scratch.View(1, 1).data);
      // Nothing read before it was written may change a result.
      workspace_->scratch.Poison();
    }
    workspace_->layers.push_back(MakeLayer(
        config, weights, i, kv, weights.layers.at(static_cast<size_t>(layer.kv_layer)).k_norm));
    workspace_->layers.back().checks_tables = limits.checks_tables;
    if (layer.kind == LayerKind::kSliding) workspace_->layers.back().attention.scratch = scratch;
  }
}

Gemma4::~Gemma4() = default;

Tensor Gemma4::logits_memory() const {
  return workspace_->logits.View(limits_.max_output_rows, config_.vocab_size);
}

void Gemma4::Poison() {
  const Workspace& ws = *workspace_;
  ws.a.Poison();
  for (const Buffer* buffer : {&ws.kept_ple, &ws.kept_ple_tokens, &ws.kept_embedding, &ws.hidden,
                               &ws.logits, &ws.ids, &ws.output_ids, &ws.scratch})
    buffer->Poison();
}

int64_t Gemma4::WorkspaceBytes(const ModelConfig& config, const Limits& limits) {
  const int64_t element = SizeOf(limits.activations);
  int64_t bytes = Activations::Bytes(config, limits.max_rows, limits.activations);
  bytes +=
      int64_t{limits.max_output_rows} * (config.hidden + config.vocab_size) * SizeOf(DType::kF32);
  for (const LayerConfig& layer : config.layers) {
    if (layer.kind != LayerKind::kSliding) continue;
    bytes += int64_t{limits.max_scratch_pages} * 2 * layer.num_kv_heads * layer.head_dim *
             kPageTokens * element;
    break;
  }
  if (config.ple_width > 0)
    bytes += int64_t{limits.max_output_rows} *
             (int64_t{2} * config.num_layers() * config.ple_width + config.hidden) * element;
  return bytes;
}

namespace {

// Per-layer inputs of layers [first, last) for rows whose scaled embeddings are x (GEMMA4.md 3.6).
// [T,(last-first)*P]
Tensor MakePle(Ops& ops, const ModelConfig& config, const ModelWeights& weights, Tensor x,
               Tensor tokens, int first, int last, const Buffer& out, const Buffer& token_part) {
  const int64_t width = config.ple_width, columns = (last - first) * width;
  const Tensor ple = out.View(x.rows(), columns);
  const Tensor token_rows = token_part.View(x.rows(), columns);
  ops.Linear(ple, x, {weights.ple_model_projection.blocks[0].Rows(first * width, columns)});
  ops.Embed(token_rows, weights.ple_embed.Cols(first * width, columns), tokens,
            RoundToBf16(std::sqrt(static_cast<float>(width))));
  ops.PerLayerInput(ple, token_rows, weights.ple_projection_norm,
                    1.0f / std::sqrt(static_cast<float>(config.hidden)), config.norm_eps);
  return ple;
}

}  // namespace

StepOutput Gemma4::ForwardPlaced(const Batch& batch) {
  Workspace& ws = *workspace_;
  Activations& a = ws.a;
  const int64_t t = batch.num_rows(), hidden = config_.hidden, width = config_.ple_width;
  const int64_t num_out = batch.output_rows.rows();
  CHECK(t > 0 && t <= limits_.max_rows && num_out <= limits_.max_output_rows,
        "step of {} rows, {} of them output", t, num_out);
  const int num_layers = config_.num_layers();
  // With shared KV layers, rows nobody asks about stop at the last layer that owns KV; otherwise
  // they stop nowhere but before the head.
  const bool stops = limits_.fast_prefill && ws.last_kv_layer + 1 < num_layers && num_out < t;
  const int stop_layer = stops ? ws.last_kv_layer : num_layers;

  const Tensor x = a.x.View(t, hidden);
  // A media placeholder without media is embedded as the pad id (GEMMA4.md 3.6, the reference).
  const auto embedded = [&](Tensor tokens, const Buffer& buffer) {
    const Tensor view = buffer.View(tokens.rows(), 1);
    ops_.ReplaceIds(view, tokens, config_.placeholder_ids, config_.pad_id.value_or(0));
    return view;
  };
  const Tensor tokens = embedded(batch.tokens, ws.ids);
  ops_.Embed(x, weights_.embed, tokens, config_.embed_scale());
  Tensor ple, kept_ple;
  if (width > 0) {
    if (stop_layer > 0)
      ple = MakePle(ops_, config_, weights_, x, tokens, 0, stop_layer, a.ple, a.ple_tokens);
    if (stops && num_out > 0) {
      const Tensor embedding = ws.kept_embedding.View(num_out, hidden);
      ops_.GatherRows(embedding, x, batch.output_rows);
      kept_ple =
          MakePle(ops_, config_, weights_, embedding, embedded(batch.output_tokens, ws.output_ids),
                  stop_layer, num_layers, ws.kept_ple, ws.kept_ple_tokens);
    }
  }
  ops_.RmsNorm(a.h.View(t, hidden), x, weights_.layers[0].input_norm, config_.norm_eps, hidden);
  for (int i = 0; i < num_layers; ++i) {
    const Layer& layer = ws.layers[static_cast<size_t>(i)];
    const Tensor next =
        i + 1 < num_layers ? weights_.layers[static_cast<size_t>(i) + 1].input_norm : Tensor{};
    Tensor layer_ple;
    if (width > 0 && i < stop_layer) layer_ple = ple.Cols(i * width, width);
    if (width > 0 && i >= stop_layer && num_out > 0)
      layer_ple = kept_ple.Cols((i - stop_layer) * width, width);
    if (i < stop_layer) {
      DecoderLayer(ops_, layer, batch.rows, batch.window_copies, a, layer_ple, next);
    } else if (i == stop_layer) {
      DecoderLayerKeeping(ops_, layer, batch, a, layer_ple, next);
    } else if (num_out > 0) {
      DecoderLayer(ops_, layer, batch.output, {}, a, layer_ple, next);
    }
    if (layer_hook_) layer_hook_();
  }
  const Tensor y = ws.hidden.View(num_out, hidden),
               logits = ws.logits.View(num_out, config_.vocab_size);
  if (num_out == 0) return {y, logits};
  if (stops)
    ops_.RmsNorm(y, a.x.View(num_out, hidden), weights_.final_norm, config_.norm_eps, hidden);
  else {
    const Tensor last = a.h.View(num_out, hidden);
    ops_.GatherRows(last, a.x.View(t, hidden), batch.output_rows);
    ops_.RmsNorm(y, last, weights_.final_norm, config_.norm_eps, hidden);
  }
  if (config_.logit_softcap > 0)
    ops_.LinearSoftCap(logits, y, {weights_.embed}, config_.logit_softcap);
  else
    ops_.Linear(logits, y, {weights_.embed});
  return {y, logits};
}

}  // namespace lapidary
