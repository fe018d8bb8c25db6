// Ops: the vocabulary the model is written in. Primitives are pure virtual; fused ops have a body
// in fused.cc written in primitives only, which is their definition. Tensors carry their dtype:
// arithmetic is f32, rounding happens on store. T tokens, D hidden, F MLP width, Dh head size, P
// per-layer width, V vocabulary, E experts, K experts per token.
#ifndef LAPIDARY_OPS_OPS_H_
#define LAPIDARY_OPS_OPS_H_

#include <cstdint>
#include <memory>
#include <span>

#include "device/device.h"
#include "device/tensor.h"
#include "kv/arena.h"
#include "ops/batch.h"
#include "ops/dummy_rule.h"
#include "ops/linear_weight.h"
#include "ops/row_sampler.h"
#include "ops/row_set.h"
#include "ops/slot_states.h"

namespace lapidary {

struct RopeSpec {
  double theta = 10000.0;
  double rotary_factor = 1.0;  // pairs from factor * Dh / 2 on do not rotate
};

// What one layer's attention needs besides its rows.
struct AttentionSpec {
  LayerKv kv;         // the cache it reads (its own or the donor's)
  LayerKv scratch;    // sliding layers: the step's scratch, pages of this one layer
  bool full = false;  // which page table
  int window = 0;     // 0: all keys
  int num_heads = 0;  // query heads
  float norm_eps = 1e-6f;
  RopeSpec rope;
};

// How a layer's fused Q|K|V rows become normed, rotated Q and cached K, V.
struct QkvSpec {
  Tensor q_norm, k_norm;  // [Dh]; k_norm: of the layer that owns the cache
  bool has_q = true;      // the rows hold Q
  bool has_kv = true;     // the rows hold K (and V unless k_eq_v)
  bool k_eq_v = false;    // V is K before its norm
};

struct RouterWeights {
  Tensor scale, proj, per_expert_scale;  // [D] [E,D] [E]
};

// What a row's experts are given, and their weights.
struct ExpertInput {
  Tensor z, ids, weights;  // [T,D] [T,K] [T,K]
};
struct ExpertWeights {
  Tensor gate_up, down;  // [E,2F,D] [E,D,F]
};

// The norms at the end of a layer with experts; next is empty after the last.
struct ExpertNorms {
  Tensor dense, experts, post, next;  // [D]
  float scale = 1, eps = 1e-6f;
};

class Ops {
 public:
  virtual ~Ops() = default;

  // Where all tensors lie, and the queue that the calls join.
  virtual Device& device() const = 0;
  // Of activations and KV: what this backend works in.
  virtual DType dtype() const = 0;
  // From now on no bit of a row depends on the other rows of a call: so on a CPU in any case.
  virtual void MakeBatchInvariant() {}
  // The most rows that each choice of Linear's kernels is for, rising; none: it has no choice.
  virtual std::span<const int32_t> product_rows() const { return {}; }
  // Brings the tensors of a batch in host memory to the device, valid until the next call; on the
  // CPU they are there. Its page tables are those of the newest call: all batches of these ops have
  // tables of one shape.
  virtual Batch PlaceBatch(const Batch& batch) = 0;
  // Dummy numbers for a tensor of weights.                                             bf16
  virtual void FillDummy(Tensor out, const DummyRule& rule) = 0;

  // out[t] = table[ids[t]] * scale; a row of NaN where the id is negative: padding.
  // [T,D] [V,D] [T] i32
  virtual void Embed(Tensor out, Tensor table, Tensor ids, float scale) = 0;
  // out[t] = ids[t], or `to` where ids[t] is one of `from`.                       [T] i32
  virtual void ReplaceIds(Tensor out, Tensor ids, std::span<const int> from, int32_t to) = 0;
  // out = in W^T, sums in one fixed order per row.                              [T,N] [T,K]
  virtual void Linear(Tensor out, Tensor in, const LinearWeight& weight) = 0;
  // out = in * (mean(in^2) + eps)^-1/2 * weight over `group` columns at a time; weight [group] or
  // empty. out may be in.
  virtual void RmsNorm(Tensor out, Tensor in, Tensor weight, float eps, int64_t group) = 0;
  // x = (x + y) * scale.                                                        [T,D]
  virtual void AddScale(Tensor x, Tensor y, float scale) = 0;
  // out = gelu_tanh(gate) * up; out may be gate.                                [T,F]
  virtual void GeluMul(Tensor out, Tensor gate, Tensor up) = 0;
  // x = cap * tanh(x / cap).
  virtual void SoftCap(Tensor x, float cap) = 0;
  // out[i] = in[rows[i]]; in place if rows ascend.                              rows [O] i32
  virtual void GatherRows(Tensor out, Tensor in, Tensor rows) = 0;
  // q = norm(q; q_norm) for a folded cache, which keeps V where K does not rotate: q's columns
  // there are multiplied by k_norm too, and rounded once. In place.                     [T,H*Dh]
  virtual void FoldedQueryNorm(Tensor q, const QkvSpec& qkv_spec, const AttentionSpec& spec) = 0;
  // Rotates each head of x [T,H*Dh] by its row's position, half-split pairs (GEMMA4.md 4).
  virtual void Rope(Tensor x, const RowSet& rows, int head_dim, const RopeSpec& rope) = 0;
  // Brings pages of this sliding layer into its scratch. Before the layer's first store: a page may
  // have a new owner in the same step.
  virtual void GatherWindow(std::span<const WindowCopy> copies, const AttentionSpec& spec) = 0;
  // Writes K and V [T,Hkv*Dh] of each row into its page; in a sliding layer those of a chunk's row
  // into scratch, and into its page where it has one.
  virtual void StoreKv(Tensor k, Tensor v, const RowSet& rows, const AttentionSpec& spec) = 0;
  // Ends the process naming owner, layer, row, position and value unless every cell that `rows`
  // read in this layer holds a page of the cache.
  virtual void CheckTables(const RowSet& rows, const AttentionSpec& spec, int layer) = 0;
  // out = softmax(q K^T) V with scale 1 over each row's visible keys; a chunk's rows read the keys
  // of a sliding layer from scratch. A row of no slot is padding and gets zeros.    [T,H*Dh]
  virtual void Attention(Tensor out, Tensor q, const RowSet& rows, const AttentionSpec& spec) = 0;
  // GEMMA4.md 3.5: the top K experts of each row, ties to the lower id, and their weights.   [T,K]
  // i32, f32
  virtual void Router(Tensor experts, Tensor weights, Tensor x, const RouterWeights& router,
                      float eps) = 0;
  // out[t] = sum over j of weights[t,j] * down_e(gelu(gate_e z) * up_e z), e = experts[t,j].
  virtual void Experts(Tensor out, Tensor z, Tensor experts, Tensor weights, Tensor gate_up,
                       Tensor down) = 0;
  // GEMMA4.md 9.3: logits of the ids in the best clusters, the smallest of them - 1 elsewhere.
  // [T,V] [T,D]
  virtual void CentroidLogits(Tensor logits, Tensor y, Tensor centroids, Tensor token_ordering,
                              Tensor embed, int top_k) = 0;

  // Of up to num_slots sequences a step; hidden_size: D of the states for a drafter, 0 without one.
  virtual std::unique_ptr<SlotStates> MakeSlotStates(int num_slots, int64_t hidden_size) = 0;
  // Draws from logits of this backend; of up to max_rows rows it makes one launch. slots: where
  // queries that name a slot are looked up; may be null.
  virtual std::unique_ptr<RowSampler> MakeRowSampler(int vocab_size, int max_rows,
                                                     const SlotStates* slots) = 0;

  // Fused ops: bodies in fused.cc.

  // gate_up = in W^T, rows gate then up; then its first half is gelu_tanh(gate) * up, its other
  // half is nothing.                                                                 [T,2F] [T,D]
  virtual void LinearGelu(Tensor gate_up, Tensor in, const LinearWeight& weight);
  // out = cap * tanh(in W^T / cap).                                             [T,N] f32
  virtual void LinearSoftCap(Tensor out, Tensor in, const LinearWeight& weight, float cap);
  // out = gelu_tanh(in W^T) * up.                                               [T,N] [T,K]
  virtual void LinearGeluMul(Tensor out, Tensor in, const LinearWeight& weight, Tensor up);

  // q of qkv: norm (of a folded cache FoldedQueryNorm), RoPE, in place. k: norm, RoPE; v:
  // weightless norm; both stored. Rounds q, k, v to their dtype after the norm and after RoPE.
  // [T,(H+2Hkv)*Dh]
  virtual void QkvNormRopeStore(Tensor qkv, const QkvSpec& qkv_spec, const RowSet& rows,
                                const AttentionSpec& spec);
  // x = (x + norm(h; post_norm)) * scale; h = norm(x; next_norm) unless next_norm is empty.   [T,D]
  virtual void ReduceNormAddNorm(Tensor h, Tensor x, Tensor post_norm, Tensor next_norm,
                                 float scale, float eps);
  // Router of x, and z = norm(x; norm) for the experts.
  virtual void RouterNorm(const ExpertInput& out, Tensor x, const RouterWeights& router,
                          Tensor norm, float eps);
  // h = norm(h; dense) + norm(e; experts), e = Experts of `in`; then as ReduceNormAddNorm.   [T,D]
  virtual void ExpertsNormAddNorm(Tensor h, Tensor x, Tensor e, const ExpertInput& in,
                                  const ExpertWeights& weights, const ExpertNorms& norms);
  // ple = (norm(context * hidden^-0.5; norm) + tokens) * 2^-0.5, in place on context. [T,n*P]
  virtual void PerLayerInput(Tensor context, Tensor tokens, Tensor norm, float context_scale,
                             float eps);
};

}  // namespace lapidary

#endif  // LAPIDARY_OPS_OPS_H_
