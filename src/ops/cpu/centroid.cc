// The drafter's centroid head (GEMMA4.md 9.3).
#include <algorithm>
#include <numeric>

#include "ops/cpu/cpu_backend.h"
#include "ops/cpu/vector.h"

namespace lapidary::cpu {

void CpuBackend::CentroidLogits(Tensor logits, Tensor y, Tensor centroids, Tensor token_ordering,
                                Tensor embed, int top_k) {
  const int64_t num_centroids = centroids.rows(), vocab = embed.rows(),
                per_cluster = vocab / num_centroids;
  CHECK(logits.cols() == vocab && token_ordering.num_elements() == vocab &&
            per_cluster * num_centroids == vocab && top_k <= num_centroids,
        "{} clusters of {} ids", num_centroids, vocab);
  std::vector<float> cluster_scores(static_cast<size_t>(y.rows() * num_centroids));
  Linear(MakeTensor(cluster_scores.data(), DType::kF32, y.rows(), num_centroids), y, {centroids});
  std::vector<int32_t> order(static_cast<size_t>(num_centroids));
  std::vector<float> y_scratch, e_scratch, row(static_cast<size_t>(vocab));
  for (int64_t t = 0; t < y.rows(); ++t) {
    const float* scores = cluster_scores.data() + t * num_centroids;
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
    const float* state = ReadRow(y, t, y_scratch);
    std::vector<std::pair<int64_t, float>> found;
    float smallest = INFINITY;
    for (int c = 0; c < top_k; ++c)
      for (int64_t j = 0; j < per_cluster; ++j) {
        const int64_t id = token_ordering.i64()[order[static_cast<size_t>(c)] * per_cluster + j];
        CHECK(id >= 0 && id < vocab, "token_ordering holds {}", id);
        const float logit = Dot(ReadRow(embed, id, e_scratch), state, y.cols());
        found.emplace_back(id, logit);
        smallest = std::min(smallest, logit);
      }
    std::fill(row.begin(), row.end(), smallest - 1.0f);
    for (const auto& [id, logit] : found) row[static_cast<size_t>(id)] = logit;
    WriteRow(logits, t, row.data(), vocab);
  }
}

}  // namespace lapidary::cpu
