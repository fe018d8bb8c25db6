// The definitions of the fused ops, in primitives.
#include <cmath>

#include "ops/ops.h"

namespace lapidary {

void Ops::QkvNormRopeStore(Tensor qkv, const QkvSpec& qkv_spec, const RowSet& rows,
                           const AttentionSpec& spec) {
  const int64_t head_dim = spec.kv.head_dim;
  int64_t column = 0;
  if (qkv_spec.has_q) {
    const Tensor q = qkv.Cols(0, spec.num_heads * head_dim);
    if (spec.kv.folded())
      FoldedQueryNorm(q, qkv_spec, spec);
    else
      RmsNorm(q, q, qkv_spec.q_norm, spec.norm_eps, head_dim);
    Rope(q, rows, spec.kv.head_dim, spec.rope);
    column = q.cols();
  }
  if (!qkv_spec.has_kv) return;
  CHECK(qkv_spec.k_eq_v || !spec.kv.folded(), "a folded cache where V is not K");
  const int64_t kv_width = spec.kv.num_kv_heads * head_dim;
  const Tensor k = qkv.Cols(column, kv_width);
  const Tensor v = qkv.Cols(column + kv_width, kv_width);
  // V first: in K=V layers it comes from K before K's norm.
  RmsNorm(v, qkv_spec.k_eq_v ? k : v, Tensor{}, spec.norm_eps, head_dim);
  RmsNorm(k, k, qkv_spec.k_norm, spec.norm_eps, head_dim);
  Rope(k, rows, spec.kv.head_dim, spec.rope);
  StoreKv(k, v, rows, spec);
}

void Ops::LinearGelu(Tensor gate_up, Tensor in, const LinearWeight& weight) {
  const int64_t width = gate_up.cols() / 2;
  const Tensor gate = gate_up.Cols(0, width);
  Linear(gate_up, in, weight);
  GeluMul(gate, gate, gate_up.Cols(width, width));
}

void Ops::LinearSoftCap(Tensor out, Tensor in, const LinearWeight& weight, float cap) {
  Linear(out, in, weight);
  SoftCap(out, cap);
}

void Ops::LinearGeluMul(Tensor out, Tensor in, const LinearWeight& weight, Tensor up) {
  Linear(out, in, weight);
  GeluMul(out, out, up);
}

void Ops::ReduceNormAddNorm(Tensor h, Tensor x, Tensor post_norm, Tensor next_norm, float scale,
                            float eps) {
  RmsNorm(h, h, post_norm, eps, h.cols());
  AddScale(x, h, scale);
  if (!next_norm.empty()) RmsNorm(h, x, next_norm, eps, x.cols());
}

void Ops::RouterNorm(const ExpertInput& out, Tensor x, const RouterWeights& router, Tensor norm,
                     float eps) {
  Router(out.ids, out.weights, x, router, eps);
  RmsNorm(out.z, x, norm, eps, x.cols());
}

void Ops::ExpertsNormAddNorm(Tensor h, Tensor x, Tensor e, const ExpertInput& in,
                             const ExpertWeights& weights, const ExpertNorms& norms) {
  RmsNorm(h, h, norms.dense, norms.eps, h.cols());
  Experts(e, in.z, in.ids, in.weights, weights.gate_up, weights.down);
  RmsNorm(e, e, norms.experts, norms.eps, e.cols());
  AddScale(h, e, 1.0f);
  ReduceNormAddNorm(h, x, norms.post, norms.next, norms.scale, norms.eps);
}

void Ops::PerLayerInput(Tensor context, Tensor tokens, Tensor norm, float context_scale,
                        float eps) {
  // norm(c * s) with eps equals norm over s * c: the scale cannot be dropped because of eps.
  AddScale(context, Tensor{}, context_scale);
  RmsNorm(context, context, norm, eps, norm.rows());
  AddScale(context, tokens, std::sqrt(0.5f));
}

}  // namespace lapidary
