#include "base/worker_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "tests/support/rounds.h"

namespace lapidary {
namespace {

// Loops follow each other at once, or after a pause in which the workers fall asleep.
TEST(WorkerPool, EveryIndexOnceInEveryLoop) {
  for (const int num_threads : {1, 2, 5}) {
    WorkerPool pool(num_threads);
    std::vector<int> counts(1000);
    const int num_rounds = Rounds(3000);
    for (int round = 0; round < num_rounds; ++round) {
      const int64_t count = round % 1000 + 1, grain = round % 7 + 1;
      std::fill(counts.begin(), counts.end(), 0);
      pool.ParallelFor(count, grain, [&](int64_t begin, int64_t end) {
        EXPECT_TRUE(begin < end && end - begin <= grain);
        for (int64_t i = begin; i < end; ++i) ++counts[static_cast<size_t>(i)];
      });
      ASSERT_EQ(std::count(counts.begin(), counts.begin() + count, 1), count);
      ASSERT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), count);
      if (round % 500 == 499) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
}

TEST(WorkerPool, EndsUnusedAndAtOnce) {
  for (int i = 0; i < Rounds(200); ++i) {
    WorkerPool pool(4);
    if (i % 2 != 0) pool.ParallelFor(8, 1, [](int64_t, int64_t) {});
  }
}

}  // namespace
}  // namespace lapidary
