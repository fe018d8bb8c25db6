// The comparison finds what it is there to find.
#include "ops/cases/compare.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "ops/cpu/cpu_ops.h"

namespace lapidary {
namespace {

Tensor View(std::vector<Bf16>& values, int64_t rows) {
  return MakeTensor(values.data(), DType::kBf16, rows, static_cast<int64_t>(values.size()) / rows);
}

TEST(Compare, CountsInUnitsOfBf16) {
  std::vector<Bf16> expected(64, ToBf16(1.0f)), actual = expected;
  EXPECT_EQ(Compare(View(expected, 4), View(actual, 4)).max_units, 0);
  actual[35] = ToBf16(1.0f + 3.0f / 128);
  const Difference d = Compare(View(expected, 4), View(actual, 4));
  EXPECT_EQ(d.max_units, 3);
  EXPECT_EQ(d.row, 2);
  EXPECT_EQ(d.column, 3);
  EXPECT_NEAR(d.rms_units, 3 / 8.0, 1e-9);
}

// A small element is measured by its row, not by itself.
TEST(Compare, UsesTheRowsMagnitude) {
  std::vector<Bf16> expected(16, ToBf16(1.0f)), actual = expected;
  expected[5] = ToBf16(1e-4f);
  actual[5] = ToBf16(-1e-4f);
  EXPECT_LT(Compare(View(expected, 1), View(actual, 1)).max_units, 0.1);
}

TEST(Compare, UnwrittenAndWrongIdsAreInfinitelyFar) {
  std::vector<Bf16> expected(16, ToBf16(1.0f)), actual = expected;
  actual[7] = Bf16{0xffff};
  EXPECT_TRUE(std::isinf(Compare(View(expected, 1), View(actual, 1)).max_units));
  std::vector<int32_t> ids = {1, 2, 3}, other = {1, 2, 4};
  EXPECT_TRUE(std::isinf(Compare(MakeTensor(ids.data(), DType::kI32, 1, 3),
                                 MakeTensor(other.data(), DType::kI32, 1, 3))
                             .max_units));
}

// Every small case runs on the definition and agrees with itself; one with a fault planted does
// not.
class WrongNorm : public OpCase {
 public:
  std::string Name() const override { return "wrong"; }
  void Make(TensorSet& set) override {
    in_ = set.Normal(3, 64, 1.0);
    out_ = set.Output(DType::kBf16, 3, 64);
  }
  void Run(Ops& ops, const TensorSet& set) override {
    ops.RmsNorm(set[out_], set[in_], Tensor{}, runs_++ == 0 ? 1e-6f : 0.1f, 64);
  }
  std::vector<CaseOutput> Outputs() const override { return {{out_}}; }
  int64_t Bytes() const override { return 0; }

 private:
  int in_ = 0, out_ = 0, runs_ = 0;
};

TEST(CheckCase, FindsAPlantedFault) {
  Device& device = HostDevice();
  const std::unique_ptr<Ops> ops = MakeCpuOps(1), other = MakeCpuOps(2);
  WrongNorm wrong;
  EXPECT_NE(CheckCase(wrong, *ops, *other, device), "");
}

TEST(SampledRows, AreFirstLastBordersAndALot) {
  for (const int64_t num_rows : {1, 5, 64, 65, 320, 8192}) {
    const std::vector<int64_t> rows = SampledRows(num_rows, 3);
    EXPECT_GE(static_cast<int64_t>(rows.size()), std::min<int64_t>(64, num_rows));
    EXPECT_EQ(rows.front(), 0);
    EXPECT_EQ(rows.back(), num_rows - 1);
    EXPECT_EQ(std::ranges::adjacent_find(rows, std::greater_equal{}), rows.end());
  }
}

// What RunRows writes is what Run writes there.
TEST(CheckCase, RowsAloneAreThoseOfTheWhole) {
  const std::unique_ptr<Ops> ops = MakeCpuOps(1);
  int count = 0;
  for (const auto& op_case : AllOpCases()) {
    if (op_case->num_rows() < 3 || op_case->Bytes() > 400'000 || op_case->Flops() > 40'000'000)
      continue;
    TensorSet whole(HostDevice()), alone(HostDevice());
    op_case->Make(whole);
    op_case->Make(alone);
    op_case->Run(*ops, whole);
    const std::vector<int64_t> rows{0, 2};
    op_case->RunRows(*ops, alone, rows);
    for (const CaseOutput& output : op_case->Outputs()) {
      const RowSample wanted(whole[output.tensor], rows), got(alone[output.tensor], rows);
      EXPECT_EQ(Compare(wanted.tensor(), got.tensor()).max_units, 0) << op_case->Name();
      EXPECT_GT(Compare(wanted.tensor(), got.tensor()).num_compared, 0) << op_case->Name();
    }
    ++count;
  }
  EXPECT_GT(count, 4);
}

TEST(CheckCase, CasesAreSound) {
  Device& device = HostDevice();
  const std::unique_ptr<Ops> ops = MakeCpuOps(1), other = MakeCpuOps(2);
  int count = 0;
  for (const auto& op_case : AllOpCases()) {
    if (op_case->only_bench() || op_case->Bytes() > 200'000 || op_case->Flops() > 20'000'000)
      continue;
    EXPECT_EQ(CheckCase(*op_case, *ops, *other, device), "") << op_case->Name();
    ++count;
  }
  EXPECT_GT(count, 10);
}

}  // namespace
}  // namespace lapidary
