// CudaBackend: the class behind MakeCudaOps; its ops are spread over the sources of this folder.
#ifndef LAPIDARY_OPS_CUDA_CUDA_BACKEND_H_
#define LAPIDARY_OPS_CUDA_CUDA_BACKEND_H_

#include <compare>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <tuple>
#include <vector>

#include "device/cuda.h"
#include "kernels/common/tensor_map.h"
#include "kernels/gemm/cublaslt.h"
#include "kernels/gemm/swap_gemm.h"
#include "kernels/moe/moe.h"
#include "ops/cuda/step_inputs.h"
#include "ops/expert_tally.h"
#include "ops/ops.h"
#include "ops/timing.h"

namespace lapidary::cuda {

class CudaBackend : public Ops {
 public:
  explicit CudaBackend(std::unique_ptr<CudaDevice> device);

  Device& device() const override { return *device_; }
  DType dtype() const override { return DType::kBf16; }
  void MakeBatchInvariant() override { batch_invariant_ = true; }
  std::span<const int32_t> product_rows() const override { return kernels::kGemmRows; }
  void LeaveOut(const LeftOut& what) { left_out_ = what; }
  ExpertTally tally();
  Batch PlaceBatch(const Batch& batch) override { return inputs_.Place(batch); }
  // elementwise.cc
  void FillDummy(Tensor out, const DummyRule& rule) override;
  void Embed(Tensor out, Tensor table, Tensor ids, float scale) override;
  void ReplaceIds(Tensor out, Tensor ids, std::span<const int> from, int32_t to) override;
  void RmsNorm(Tensor out, Tensor in, Tensor weight, float eps, int64_t group) override;
  void AddScale(Tensor x, Tensor y, float scale) override;
  void GeluMul(Tensor out, Tensor gate, Tensor up) override;
  void SoftCap(Tensor x, float cap) override;
  void GatherRows(Tensor out, Tensor in, Tensor rows) override;
  void ReduceNormAddNorm(Tensor h, Tensor x, Tensor post_norm, Tensor next_norm, float scale,
                         float eps) override;
  void PerLayerInput(Tensor context, Tensor tokens, Tensor norm, float context_scale,
                     float eps) override;
  // linear.cc
  void Linear(Tensor out, Tensor in, const LinearWeight& weight) override;
  void LinearGelu(Tensor gate_up, Tensor in, const LinearWeight& weight) override;
  void LinearSoftCap(Tensor out, Tensor in, const LinearWeight& weight, float cap) override;
  void LinearGeluMul(Tensor out, Tensor in, const LinearWeight& weight, Tensor up) override;
  // attention.cc
  void FoldedQueryNorm(Tensor q, const QkvSpec& qkv_spec, const AttentionSpec& spec) override;
  void Rope(Tensor x, const RowSet& rows, int head_dim, const RopeSpec& rope) override;
  void StoreKv(Tensor k, Tensor v, const RowSet& rows, const AttentionSpec& spec) override;
  void GatherWindow(std::span<const WindowCopy> copies, const AttentionSpec& spec) override;
  void CheckTables(const RowSet& rows, const AttentionSpec& spec, int layer) override;
  void Attention(Tensor out, Tensor q, const RowSet& rows, const AttentionSpec& spec) override;
  void QkvNormRopeStore(Tensor qkv, const QkvSpec& qkv_spec, const RowSet& rows,
                        const AttentionSpec& spec) override;
  // moe.cc
  void Router(Tensor experts, Tensor weights, Tensor x, const RouterWeights& router,
              float eps) override;
  void RouterNorm(const ExpertInput& out, Tensor x, const RouterWeights& router, Tensor norm,
                  float eps) override;
  void Experts(Tensor out, Tensor z, Tensor experts, Tensor weights, Tensor gate_up,
               Tensor down) override;
  void ExpertsNormAddNorm(Tensor h, Tensor x, Tensor e, const ExpertInput& in,
                          const ExpertWeights& weights, const ExpertNorms& norms) override;
  void CentroidLogits(Tensor logits, Tensor y, Tensor centroids, Tensor token_ordering,
                      Tensor embed, int top_k) override;
  // row_sampler.cc
  std::unique_ptr<RowSampler> MakeRowSampler(int vocab_size, int max_rows,
                                             const SlotStates* slots) override;
  // slot_states.cc
  std::unique_ptr<SlotStates> MakeSlotStates(int num_slots, int64_t hidden_size) override;

 private:
  // What a tensor map was made for: the kernel's use, address, and shape.
  struct MapKey {
    int use;
    const void* base;
    int64_t rows, cols, stride;
    auto operator<=>(const MapKey&) const = default;
  };

  kernels::Stream stream() const { return device_->stream(); }
  // Memory for one op's partial results, valid until the next call that asks. What it outgrew
  // stays: captured graphs write there.
  void* Scratch(int64_t bytes);
  const float* Frequencies(const RopeSpec& rope, int head_dim);
  // A map made once for this key.
  const kernels::TensorMap& Map(const MapKey& key, const std::function<kernels::TensorMap()>& make);
  // As kernels::MakeFoldedMap.
  const kernels::TensorMap& FoldedMap(const LayerKv& kv, int keys, int blocks);
  void DecodeRows(Tensor out, Tensor q, const RowSet& rows, const AttentionSpec& spec,
                  int64_t begin, int64_t end);
  void PrefillChunks(Tensor out, Tensor q, const RowSet& rows, const AttentionSpec& spec,
                     std::span<const ChunkSpan> spans);
  kernels::ExpertSumParams ExpertPairs(const ExpertInput& in, const ExpertWeights& weights);
  // `in` as the products take it.
  Tensor Rounded(Tensor in);
  void Gemm(const kernels::GemmParams& params);
  bool IsOwn(const kernels::GemmParams& params) const;
  bool IsOwnHead(const kernels::GemmParams& params) const;
  kernels::SwapTiling Tiling(const kernels::GemmParams& params) const;
  void OwnGemm(const kernels::GemmParams& params, const kernels::SwapGemmParams& epilogue);

  std::unique_ptr<CudaDevice> device_;  // goes last
  bool batch_invariant_ = false;
  LeftOut left_out_;
  DeviceMemory tally_;  // an ExpertTally
  StepInputs inputs_;
  kernels::CublasLt blas_;
  std::vector<DeviceMemory> scratch_;  // each at least twice the one before
  std::map<std::tuple<double, double, int>, DeviceMemory> frequencies_;
  std::map<MapKey, kernels::TensorMap> maps_;
};

// A count as the kernels take it.
inline int Int(int64_t value) {
  CHECK(value >= 0 && value < (int64_t{1} << 31), "{} rows or columns", value);
  return static_cast<int>(value);
}

}  // namespace lapidary::cuda

#endif  // LAPIDARY_OPS_CUDA_CUDA_BACKEND_H_
