// CudaRowSampler: RowSampler over kernels/sampling. Its tokens are Sampler's, except where rounding
// decides: a draw is compared with sums whose last bits differ (row_sampling.h).
#ifndef LAPIDARY_OPS_CUDA_ROW_SAMPLER_H_
#define LAPIDARY_OPS_CUDA_ROW_SAMPLER_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "device/cuda.h"
#include "kernels/sampling/row_sampling.h"
#include "ops/cuda/slot_states.h"
#include "ops/row_sampler.h"

namespace lapidary::cuda {

class CudaRowSampler : public RowSampler {
 public:
  // Calls have up to max_rows queries. slots may be null.
  CudaRowSampler(CudaDevice& device, int vocab_size, int max_rows, const CudaSlotStates* slots);

  RowDraws Queue(Tensor logits, std::span<const RowQuery> queries) override;
  std::span<RowAnswer> Answers(uint64_t call) override;
  Tensor Best(Tensor logits, std::span<const int32_t> masked) override;

  // The parts of Queue. Begins a call; brings queries to the device, as many as fit, and returns
  // their number.
  void BeginCall(std::span<const RowQuery> queries);
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
  // What an answer is made of besides the results.
  struct Asked {
    bool draws, wants_logprobs;
    int32_t token;
    int num_top;
    kernels::IdRange ids;  // of Call::ids
  };
  struct Call {
    uint64_t number = 0;
    std::vector<Asked> asked;
    std::vector<int32_t> ids;
    bool has_scores = false;
    DeviceMemory results;  // of all queries: results, scores, log probabilities that were asked for
    HostMemory copy;
    uint64_t mark = 0;  // of the copy
  };
  struct Stage {
    HostMemory memory;
    uint64_t mark = 0;  // of the copy
  };
  int64_t ResultBytes(const Call& call) const;
  void AllocateResults(Call& call, int64_t bytes);
  RowAnswer AnswerOf(const Call& call, size_t i) const;
  kernels::IdRange AddMasked(const SamplingRow& row);
  kernels::IdRange AddBiases(const SamplingRow& row);
  kernels::IdRange AddCounts(const SamplingRow& row);
  int64_t UploadBytes() const;

  CudaDevice& device_;
  const int vocab_size_, max_rows_;
  const CudaSlotStates* const slots_;
  DeviceMemory upload_, scratch_;
  std::array<Stage, 2> stages_;
  size_t stage_ = 0;
  std::array<Call, 2> calls_;
  uint64_t num_calls_ = 0;
  size_t num_queued_ = 0, num_asked_ = 0;  // queries and ids of the newest call in earlier launches
  bool places_ = false;                    // an uploaded query names a slot
  DeviceMemory best_upload_, best_results_;
  std::optional<std::vector<int32_t>> best_masked_;  // of the tasks in best_upload_
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
