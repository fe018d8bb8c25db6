#include "model/decoder_layer.h"

namespace lapidary {
namespace {

// h = o_proj(attention(q)).
void AttentionOut(Ops& ops, const Layer& l, const RowSet& rows, Activations& a, Tensor q) {
  const int64_t t = rows.num_rows();
  const Tensor o = a.o.View(t, l.q_width());
  if (l.checks_tables) ops.CheckTables(rows, l.attention, l.index);
  ops.Attention(o, q, rows, l.attention);
  ops.Linear(a.h.View(t, l.weights->o.rows()), o, l.weights->o);
}

// From the dense MLP's output h to the end of a layer with experts, which are routed by the
// un-normed residual x (GEMMA4.md 3.5).
void AddExperts(Ops& ops, const Layer& l, Activations& a, Tensor x, Tensor h, Tensor next_norm) {
  const LayerWeights& w = *l.weights;
  const MoeWeights& moe = w.moe;
  const int64_t t = x.rows(), hidden = x.cols();
  const ExpertInput in = {a.expert_in.View(t, hidden), a.expert_ids.View(t, l.moe.top_k),
                          a.expert_weights.View(t, l.moe.top_k)};
  ops.RouterNorm(in, x, {moe.router_scale, moe.router_proj, moe.per_expert_scale}, moe.pre_norm_2,
                 l.norm_eps);
  ops.ExpertsNormAddNorm(
      h, x, a.expert_out.View(t, hidden), in, {moe.gate_up, moe.down},
      {moe.post_norm_1, moe.post_norm_2, w.post_mlp_norm, next_norm, w.layer_scalar, l.norm_eps});
}

// From h = o_proj(attention) to the layer's end.
void AfterAttention(Ops& ops, const Layer& l, Activations& a, int64_t t, Tensor ple,
                    Tensor next_norm) {
  const LayerWeights& w = *l.weights;
  const int64_t hidden = w.o.rows();
  const Tensor x = a.x.View(t, hidden), h = a.h.View(t, hidden);
  ops.ReduceNormAddNorm(h, x, w.post_attn_norm, w.pre_mlp_norm, 1.0f, l.norm_eps);

  const int64_t width = w.down.cols();
  const Tensor gate_up = a.gate_up.View(t, 2 * width);
  ops.LinearGelu(gate_up, h, w.gate_up);
  ops.Linear(h, gate_up.Cols(0, width), w.down);
  if (l.moe.num_experts > 0) {
    CHECK(ple.empty(), "layer {} has experts and per-layer embeddings", l.index);
    AddExperts(ops, l, a, x, h, next_norm);
    return;
  }
  if (ple.empty()) {
    ops.ReduceNormAddNorm(h, x, w.post_mlp_norm, next_norm, w.layer_scalar, l.norm_eps);
    return;
  }
  ops.ReduceNormAddNorm(h, x, w.post_mlp_norm, Tensor{}, 1.0f, l.norm_eps);
  const Tensor g = a.ple_gate.View(t, ple.cols());
  ops.LinearGeluMul(g, x, w.ple_gate, ple);
  ops.Linear(h, g, w.ple_projection);
  ops.ReduceNormAddNorm(h, x, w.ple_norm, next_norm, w.layer_scalar, l.norm_eps);
}

}  // namespace

Layer MakeLayer(const ModelConfig& config, const ModelWeights& weights, int index,
                const LayerKv& kv, Tensor k_norm) {
  Layer layer;
  layer.k_norm = k_norm;
  layer.config = &config.layers.at(static_cast<size_t>(index));
  layer.weights = &weights.layers.at(static_cast<size_t>(index));
  layer.moe = config.moe;
  layer.index = index;
  layer.norm_eps = config.norm_eps;
  const bool full = layer.config->kind == LayerKind::kFull;
  const RopeConfig& rope = full ? config.full_rope : config.sliding_rope;
  layer.attention.kv = kv;
  layer.attention.full = full;
  layer.attention.window = full ? 0 : config.window;
  layer.attention.num_heads = config.num_heads;
  layer.attention.norm_eps = config.norm_eps;
  layer.attention.rope = {rope.theta, rope.rotary_factor};
  CHECK(kv.head_dim == layer.config->head_dim && kv.num_kv_heads == layer.config->num_kv_heads,
        "layer {} has {} KV heads of {}, its cache {} of {}", index, layer.config->num_kv_heads,
        layer.config->head_dim, kv.num_kv_heads, kv.head_dim);
  return layer;
}

void DecoderLayer(Ops& ops, const Layer& layer, const RowSet& rows,
                  std::span<const WindowCopy> window_copies, Activations& a, Tensor ple,
                  Tensor next_norm) {
  const int64_t t = rows.num_rows();
  const Tensor h = a.h.View(t, layer.weights->o.rows());
  const Tensor qkv =
      a.qkv.View(t, layer.q_width() + (layer.config->owns_kv ? layer.kv_width() : 0));
  ops.Linear(qkv.Cols(0, layer.weights->qkv.rows()), h, layer.weights->qkv);
  if (layer.gathers()) ops.GatherWindow(window_copies, layer.attention);
  ops.QkvNormRopeStore(qkv, layer.qkv_spec(), rows, layer.attention);
  AttentionOut(ops, layer, rows, a, qkv.Cols(0, layer.q_width()));
  AfterAttention(ops, layer, a, t, ple, next_norm);
}

void DecoderLayerKeeping(Ops& ops, const Layer& layer, const Batch& batch, Activations& a,
                         Tensor ple, Tensor next_norm) {
  const LinearWeight& qkv_weight = layer.weights->qkv;
  const int64_t t = batch.num_rows(), hidden = layer.weights->o.rows();
  CHECK(layer.config->owns_kv && qkv_weight.num_blocks >= 2, "{} blocks", qkv_weight.num_blocks);
  // K and V of all rows.
  LinearWeight kv_weight = {qkv_weight.blocks[1]};
  if (qkv_weight.num_blocks == 3) kv_weight = {qkv_weight.blocks[1], qkv_weight.blocks[2]};
  const Tensor kv = a.qkv.View(t, layer.kv_width());
  ops.Linear(kv.Cols(0, kv_weight.rows()), a.h.View(t, hidden), kv_weight);
  QkvSpec spec = layer.qkv_spec();
  spec.has_q = false;
  if (layer.gathers()) ops.GatherWindow(batch.window_copies, layer.attention);
  ops.QkvNormRopeStore(kv, spec, batch.rows, layer.attention);
  // The rest of the kept rows. Gathering in place is safe: a row moves only to an equal or lower
  // place.
  const int64_t n = batch.output_rows.rows();
  if (n == 0) return;
  ops.GatherRows(a.x.View(n, hidden), a.x.View(t, hidden), batch.output_rows);
  ops.GatherRows(a.h.View(n, hidden), a.h.View(t, hidden), batch.output_rows);
  const Tensor q = a.qkv.View(n, layer.q_width());
  ops.Linear(q, a.h.View(n, hidden), {qkv_weight.blocks[0]});
  spec.has_q = true;
  spec.has_kv = false;
  ops.QkvNormRopeStore(q, spec, batch.output, layer.attention);
  AttentionOut(ops, layer, batch.output, a, q);
  AfterAttention(ops, layer, a, n, ple, next_norm);
}

}  // namespace lapidary
