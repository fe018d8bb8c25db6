// CpuBackend: the class behind MakeCpuOps; its ops are spread over the sources of this folder.
#ifndef LAPIDARY_OPS_CPU_CPU_BACKEND_H_
#define LAPIDARY_OPS_CPU_CPU_BACKEND_H_

#include <span>
#include <vector>

#include "base/worker_pool.h"
#include "ops/expert_tally.h"
#include "ops/ops.h"

namespace lapidary::cpu {

class CpuBackend : public Ops {
 public:
  explicit CpuBackend(int num_threads) : pool_(num_threads) {}

  Device& device() const override { return HostDevice(); }
  DType dtype() const override { return DType::kF32; }
  Batch PlaceBatch(const Batch& batch) override { return batch; }
  const ExpertTally& tally() const { return tally_; }
  // dummy.cc
  void FillDummy(Tensor out, const DummyRule& rule) override;
  // elementwise.cc
  void Embed(Tensor out, Tensor table, Tensor ids, float scale) override;
  void ReplaceIds(Tensor out, Tensor ids, std::span<const int> from, int32_t to) override;
  void RmsNorm(Tensor out, Tensor in, Tensor weight, float eps, int64_t group) override;
  void AddScale(Tensor x, Tensor y, float scale) override;
  void GeluMul(Tensor out, Tensor gate, Tensor up) override;
  void SoftCap(Tensor x, float cap) override;
  void GatherRows(Tensor out, Tensor in, Tensor rows) override;
  // cpu_ops.cc
  void Linear(Tensor out, Tensor in, const LinearWeight& weight) override;
  // attention.cc
  void FoldedQueryNorm(Tensor q, const QkvSpec& qkv_spec, const AttentionSpec& spec) override;
  void Rope(Tensor x, const RowSet& rows, int head_dim, const RopeSpec& rope) override;
  void GatherWindow(std::span<const WindowCopy> copies, const AttentionSpec& spec) override;
  void StoreKv(Tensor k, Tensor v, const RowSet& rows, const AttentionSpec& spec) override;
  void CheckTables(const RowSet& rows, const AttentionSpec& spec, int layer) override;
  void Attention(Tensor out, Tensor q, const RowSet& rows, const AttentionSpec& spec) override;
  // moe.cc
  void Router(Tensor experts, Tensor weights, Tensor x, const RouterWeights& router,
              float eps) override;
  void Experts(Tensor out, Tensor z, Tensor experts, Tensor weights, Tensor gate_up,
               Tensor down) override;
  // centroid.cc
  void CentroidLogits(Tensor logits, Tensor y, Tensor centroids, Tensor token_ordering,
                      Tensor embed, int top_k) override;
  // row_sampler.cc
  std::unique_ptr<SlotStates> MakeSlotStates(int num_slots, int64_t hidden_size) override;
  std::unique_ptr<RowSampler> MakeRowSampler(int vocab_size, int max_rows,
                                             const SlotStates* slots) override;

 private:
  // Rows of a bf16 tensor as f32 [T,N] for Linear; f32 tensors pass through.
  Tensor AsF32(Tensor in, std::vector<float>& storage);

  WorkerPool pool_;
  std::vector<float> linear_in_, linear_out_;
  ExpertTally tally_;
};

}  // namespace lapidary::cpu

#endif  // LAPIDARY_OPS_CPU_CPU_BACKEND_H_
