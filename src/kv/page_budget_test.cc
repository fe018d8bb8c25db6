#include "kv/page_budget.h"

#include <gtest/gtest.h>

namespace lapidary {
namespace {

// A promised page can be had with nothing free but holes and idle pages, and what is not promised
// does not take it.
TEST(PageBudget, APromiseIsKept) {
  const KvLayout layout =
      KvLayout::Make({{false, true, 2, 32}, {true, true, 1, 32}}, 100, DType::kF32);
  SlabPool pool(layout, 4);  // three slabs: a sliding page each, or two full pages
  PrefixCache cache(layout, pool);
  PageBudget budget(pool, cache);
  EXPECT_TRUE(budget.Fits({6, 0}));
  EXPECT_FALSE(budget.Fits({7, 0}));
  EXPECT_TRUE(budget.Fits({3, 1}));
  EXPECT_FALSE(budget.Fits({5, 1}));
  budget.Promise({2, 1});
  EXPECT_TRUE(budget.TakeSpare<SlidingPage>(false).has_value());
  EXPECT_FALSE(budget.TakeSpare<SlidingPage>(false).has_value());
  EXPECT_FALSE(budget.TakeSpare<FullPage>(true).has_value());
  ASSERT_TRUE(budget.TakePromised<FullPage>().has_value());
  budget.Promise({-1, 0});
  ASSERT_TRUE(budget.TakePromised<SlidingPage>().has_value());
  budget.Promise({0, -1});
  budget.CheckInvariants();
  ASSERT_TRUE(budget.TakePromised<FullPage>().has_value());
  budget.Promise({-1, 0});
  EXPECT_EQ(pool.num_free_slabs(), 0);
  budget.CheckInvariants();
}

}  // namespace
}  // namespace lapidary
