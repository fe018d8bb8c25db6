#include "ops/expert_tally.h"

#include "ops/cpu/cpu_backend.h"

#ifdef LAPIDARY_CUDA
#include "ops/cuda/cuda_backend.h"
#endif

namespace lapidary {

ExpertTally ExpertTally::operator-(const ExpertTally& before) const {
  ExpertTally since = *this;
  for (size_t i = 0; i < of_rows.size(); ++i) {
    since.of_rows[i].num_calls -= before.of_rows[i].num_calls;
    since.of_rows[i].num_experts -= before.of_rows[i].num_experts;
  }
  return since;
}

ExpertTally ReadExpertTally(Ops& ops) {
#ifdef LAPIDARY_CUDA
  if (!ops.device().is_host()) return static_cast<cuda::CudaBackend&>(ops).tally();
#endif
  return static_cast<cpu::CpuBackend&>(ops).tally();
}

}  // namespace lapidary
