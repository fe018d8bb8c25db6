// CudaRowSampler: RowSampler over kernels/sampling. Its tokens are Sampler's, except where rounding
// decides: a draw is compared with sums whose last bits differ (row_sampling.h).
#ifndef LAPIDARY_OPS_CUDA_ROW_SAMPLER_H_
#define LAPIDARY_OPS_CUDA_ROW_SAMPLER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "device/cuda.h"
#include "kernels/sampling/row_sampling.h"
#include "ops/row_sampler.h"

namespace lapidary::cuda {

class CudaRowSampler : public RowSampler {
 public:
  // Allocates for launches of max_rows rows; more are done in several.
  CudaRowSampler(CudaDevice& device, int vocab_size, int max_rows);

  std::span<RowAnswer> Sample(Tensor logits, std::span<const RowQuery> queries) override;

  // The parts of Sample. Brings queries to the device, as many as fit, and returns their number.
  size_t Upload(std::span<const RowQuery> queries);
  // Queues the kernels for what was uploaded.
  void Launch(Tensor logits);

 private:
  struct Lists {
    std::vector<kernels::RowTask> tasks;
    std::vector<kernels::IdBias> biases;
    std::vector<kernels::IdCount> counts;
    std::vector<int32_t> masked, asked;
    std::vector<uint32_t> allowed;
  };
  void AddTask(const RowQuery& query);
  void AddDraw(const RowQuery& query, kernels::RowTask& task);
  kernels::IdRange AddMasked(const SamplingRow& row);
  kernels::IdRange AddBiases(const SamplingRow& row);
  kernels::IdRange AddCounts(const SamplingRow& row);
  int64_t UploadBytes() const;
  int64_t ResultBytes() const;
  void Download(std::span<const RowQuery> queries, std::span<RowAnswer> answers);

  CudaDevice& device_;
  const int vocab_size_, max_rows_;
  DeviceMemory upload_, scratch_, results_;
  HostMemory staging_;  // of what goes in; a copy is over when the answers are read
  Lists lists_;
  std::span<const int32_t> shared_suppress_;  // of shared_masked_
  kernels::IdRange shared_masked_;
  std::vector<int32_t> seen_;  // [V] 1 + place of an id in a list being made; zero between lists
  std::vector<char> bytes_;
  kernels::RowSamplingParams params_;
  kernels::RowSamplingWork work_;
  std::vector<RowAnswer> answers_;
};

}  // namespace lapidary::cuda

#endif  // LAPIDARY_OPS_CUDA_ROW_SAMPLER_H_
