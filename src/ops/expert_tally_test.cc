#include "ops/expert_tally.h"

#include <gtest/gtest.h>

#include <vector>

#include "ops/cpu/cpu_ops.h"

namespace lapidary {
namespace {

TEST(ExpertTally, CountsDistinctExpertsByRows) {
  constexpr int64_t kExperts = 5, kHidden = 8, kWidth = 4;
  const std::unique_ptr<Ops> ops = MakeCpuOps(1);
  std::vector<Bf16> weights(kExperts * 2 * kWidth * kHidden);
  const auto cube = [&](int64_t rows, int64_t cols) {
    Tensor tensor = MakeTensor(weights.data(), DType::kBf16, kExperts * rows, cols);
    tensor.rank = 3;
    tensor.shape = {kExperts, rows, cols, 0};
    tensor.row_stride = rows * cols;
    return tensor;
  };
  const auto call = [&](std::vector<int32_t> ids) {
    const auto rows = static_cast<int64_t>(ids.size() / 2);
    std::vector<float> z(static_cast<size_t>(rows * kHidden)), out(z.size()), shares(ids.size());
    ops->Experts(MakeTensor(out.data(), DType::kF32, rows, kHidden),
                 MakeTensor(z.data(), DType::kF32, rows, kHidden),
                 MakeTensor(ids.data(), DType::kI32, rows, 2),
                 MakeTensor(shares.data(), DType::kF32, rows, 2), cube(2 * kWidth, kHidden),
                 cube(kHidden, kWidth));
  };
  call({0, 1});
  const ExpertTally before = ReadExpertTally(*ops);
  EXPECT_EQ(before.of_rows[1].num_experts, 2u);
  call({0, 1, 1, 4});
  call({3, 2, 2, 3});
  call({4, 3});
  call(std::vector<int32_t>(2 * (ExpertTally::kMaxRows + 1), 0));
  const ExpertTally since = ReadExpertTally(*ops) - before;
  for (size_t rows = 0; rows < since.of_rows.size(); ++rows) {
    EXPECT_EQ(since.of_rows[rows].num_calls, rows == 1 ? 1u : rows == 2 ? 2u : 0u) << rows;
    EXPECT_EQ(since.of_rows[rows].num_experts, rows == 1 ? 2u : rows == 2 ? 5u : 0u) << rows;
  }
}

}  // namespace
}  // namespace lapidary
