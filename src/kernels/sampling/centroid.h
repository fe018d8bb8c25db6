// The drafter's centroid head: logits of the ids in the best clusters, the smallest of them - 1
// elsewhere. f32 throughout.
#ifndef LAPIDARY_KERNELS_SAMPLING_CENTROID_H_
#define LAPIDARY_KERNELS_SAMPLING_CENTROID_H_

#include <cstdint>

#include "base/bf16.h"
#include "kernels/common/launch.h"

namespace lapidary::kernels {

struct CentroidParams {
  const void* y = nullptr;  // [T,D] f32, or bf16 with y_bf16
  bool y_bf16 = false;
  const Bf16* centroids = nullptr;          // [C,D]
  const int64_t* token_ordering = nullptr;  // [V] ids, cluster by cluster
  const Bf16* embed = nullptr;              // [V,D]
  float* logits = nullptr;                  // [T,V]
  int64_t y_stride = 0, centroids_stride = 0, embed_stride = 0, logits_stride = 0;
  int num_rows = 0, hidden = 0, num_centroids = 0, vocab = 0, top_k = 0;
};
void LaunchCentroid(const CentroidParams& params, Stream stream);

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_SAMPLING_CENTROID_H_
