#include "app/bench/device/growth.h"

#include <gtest/gtest.h>

#include <vector>

namespace lapidary {
namespace {

TEST(Growth, IsMeasuredAlongBothSizes) {
  // A grid of 2 x 3: along context at batch 1 and 8, along batch at each context.
  std::vector<StepPoint> points = {{1, 128, 10, 8},  {1, 512, 10.2, 8.1}, {1, 2048, 12, 9},
                                   {8, 128, 14, 11}, {8, 512, 15, 12},    {8, 2048, 23, 17}};
  const Growth growth = GrowthOf(points);
  // (8, 2048) takes 23 where 14 + 6 follow from (8, 128), and 12 + 8 from (1, 2048).
  EXPECT_DOUBLE_EQ(growth.excess, 23.0 / 20);
  EXPECT_EQ(growth.at.batch, 8);
  EXPECT_EQ(growth.at.context, 2048);
  EXPECT_EQ(growth.from.batch, 1);
  // From (8, 128) to there 9 of 6; from (1, 128) to (1, 2048) 2 of 1, but 1 is too little.
  EXPECT_DOUBLE_EQ(growth.slope, 1.5);
  // One step that stands out, over batch from 10.2 + 3.9, over context from 14 + 1.
  points[4].ms = 30;
  const Growth other = GrowthOf(points);
  EXPECT_DOUBLE_EQ(other.excess, 30 / 14.1);
  EXPECT_EQ(other.at.context, 512);
  EXPECT_EQ(other.from.batch, 1);
}

TEST(Growth, OfOnePointIsNone) {
  const StepPoint alone[] = {{1, 128, 10, 8}};
  EXPECT_EQ(GrowthOf(alone).excess, 1);
  EXPECT_EQ(GrowthOf(alone).slope, 0);
  EXPECT_EQ(GrowthOf({}).excess, 1);
}

}  // namespace
}  // namespace lapidary
