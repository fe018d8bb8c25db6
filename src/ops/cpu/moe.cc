// Router and expert MLPs (GEMMA4.md 3.5).
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/cpu/cpu_backend.h"
#include "ops/cpu/vector.h"

namespace lapidary::cpu {

void CpuBackend::Router(Tensor experts, Tensor weights, Tensor x, const RouterWeights& router,
                        float eps) {
  const int64_t num_rows = x.rows(), hidden = x.cols(), num_experts = router.proj.rows();
  const auto top_k = static_cast<size_t>(experts.cols());
  CHECK(experts.rows() == num_rows && weights.cols() == experts.cols() &&
            experts.cols() <= num_experts,
        "top {} of {} experts", top_k, num_experts);
  std::vector<float> u_data(static_cast<size_t>(num_rows * hidden));
  const Tensor u = MakeTensor(u_data.data(), DType::kF32, num_rows, hidden);
  RmsNorm(u, x, router.scale, eps, hidden);
  AddScale(u, Tensor{}, 1.0f / std::sqrt(static_cast<float>(hidden)));
  std::vector<float> logits(static_cast<size_t>(num_rows * num_experts));
  Linear(MakeTensor(logits.data(), DType::kF32, num_rows, num_experts), u, {router.proj});
  const std::vector<float> expert_scale = ToFloats(router.per_expert_scale);
  std::vector<int32_t> order(static_cast<size_t>(num_experts));
  for (int64_t t = 0; t < num_rows; ++t) {
    float* row = logits.data() + t * num_experts;
    const float largest = *std::max_element(row, row + num_experts);
    float sum = 0;
    for (int64_t e = 0; e < num_experts; ++e) sum += row[e] = Exp(row[e] - largest);
    for (int64_t e = 0; e < num_experts; ++e) row[e] /= sum;
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return row[a] > row[b]; });
    float chosen = 0;
    for (size_t j = 0; j < top_k; ++j) chosen += row[order[j]];
    for (size_t j = 0; j < top_k; ++j) {
      const int32_t e = order[j];
      static_cast<int32_t*>(experts.data)[t * experts.row_stride + static_cast<int64_t>(j)] = e;
      weights.f32()[t * weights.row_stride + static_cast<int64_t>(j)] =
          row[e] / chosen * expert_scale[static_cast<size_t>(e)];
    }
  }
}

void CpuBackend::Experts(Tensor out, Tensor z, Tensor experts, Tensor weights, Tensor gate_up,
                         Tensor down) {
  const int64_t num_rows = z.rows(), hidden = z.cols(), num_experts = gate_up.shape[0],
                width = gate_up.shape[1] / 2;
  const int64_t top_k = experts.cols();
  const auto* ids = static_cast<const int32_t*>(experts.data);
  // Slot (t, j) holds expert j's output for row t, so that the sum below is in one order whatever
  // the grouping.
  std::vector<float> slots(static_cast<size_t>(num_rows * top_k * hidden));
  std::vector<float> in, gate_up_out, down_out, row_scratch;
  std::vector<std::vector<int64_t>> slots_of(static_cast<size_t>(num_experts));
  for (int64_t t = 0; t < num_rows; ++t)
    for (int64_t j = 0; j < top_k; ++j) {
      const int32_t e = ids[t * experts.row_stride + j];
      CHECK(e >= 0 && e < num_experts, "expert {} of {}", e, num_experts);
      slots_of[static_cast<size_t>(e)].push_back(t * top_k + j);
    }
  if (num_rows <= ExpertTally::kMaxRows) {
    ExpertTally::Calls& calls = tally_.of_rows[static_cast<size_t>(num_rows)];
    ++calls.num_calls;
    for (const std::vector<int64_t>& mine : slots_of) calls.num_experts += mine.empty() ? 0 : 1;
  }
  for (int64_t e = 0; e < num_experts; ++e) {
    const std::vector<int64_t>& mine = slots_of[static_cast<size_t>(e)];
    if (mine.empty()) continue;
    const auto m = static_cast<int64_t>(mine.size());
    in.resize(static_cast<size_t>(m * hidden));
    gate_up_out.resize(static_cast<size_t>(m * 2 * width));
    down_out.resize(static_cast<size_t>(m * hidden));
    const Tensor x = MakeTensor(in.data(), DType::kF32, m, hidden);
    for (int64_t i = 0; i < m; ++i)
      WriteRow(x, i, ReadRow(z, mine[static_cast<size_t>(i)] / top_k, row_scratch), hidden);
    const Tensor gu = MakeTensor(gate_up_out.data(), DType::kF32, m, 2 * width);
    const Tensor y = MakeTensor(down_out.data(), DType::kF32, m, hidden);
    Bf16* up_weights = gate_up.bf16() + e * 2 * width * hidden;
    Bf16* down_weights = down.bf16() + e * hidden * width;
    Linear(gu, x, {MakeTensor(up_weights, DType::kBf16, 2 * width, hidden)});
    const Tensor activated = gu.Cols(0, width);
    GeluMul(activated, activated, gu.Cols(width, width));
    Linear(y, activated, {MakeTensor(down_weights, DType::kBf16, hidden, width)});
    for (int64_t i = 0; i < m; ++i)
      std::copy_n(down_out.data() + i * hidden, hidden,
                  slots.data() + mine[static_cast<size_t>(i)] * hidden);
  }
  std::vector<float> sum(static_cast<size_t>(hidden));
  for (int64_t t = 0; t < num_rows; ++t) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (int64_t j = 0; j < top_k; ++j) {
      const float weight = weights.f32()[t * weights.row_stride + j];
      const float* slot = slots.data() + (t * top_k + j) * hidden;
      for (int64_t i = 0; i < hidden; ++i) sum[static_cast<size_t>(i)] += weight * slot[i];
    }
    WriteRow(out, t, sum.data(), hidden);
  }
}

}  // namespace lapidary::cpu
