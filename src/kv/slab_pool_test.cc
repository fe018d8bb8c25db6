#include "kv/slab_pool.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/support/rounds.h"

namespace lapidary {
namespace {

// bf16 page bytes of KERNELS.md 3.
TEST(KvLayout, SlabsOfThePublishedModels) {
  struct Case {
    const char* name;
    int sliding, full, sliding_heads, full_heads;
    int64_t slab_bytes, full_page_bytes;
    int full_per_slab, sliding_per_slab;
  };
  for (const Case& c : {Case{"31B", 50, 10, 16, 4, 52'428'800, 5'242'880, 10, 1},
                        Case{"26B-A4B", 25, 5, 8, 2, 13'107'200, 1'310'720, 10, 1},
                        Case{"E4B", 20, 4, 2, 2, 5'242'880, 1'048'576, 5, 2},
                        Case{"E2B", 12, 3, 1, 1, 786'432, 393'216, 2, 1}}) {
    std::vector<KvLayerShape> layers(static_cast<size_t>(c.sliding),
                                     {false, true, c.sliding_heads, 256});
    layers.insert(layers.end(), static_cast<size_t>(c.full), {true, true, c.full_heads, 512});
    layers.push_back({true, false, c.full_heads, 512});  // a layer that shares costs nothing
    const KvLayout layout = KvLayout::Make(layers, 512, DType::kBf16);
    EXPECT_EQ(layout.slab_bytes, c.slab_bytes) << c.name;
    EXPECT_EQ(layout.full_page_bytes, c.full_page_bytes) << c.name;
    EXPECT_EQ(layout.full_pages_per_slab, c.full_per_slab) << c.name;
    EXPECT_EQ(layout.sliding_pages_per_slab, c.sliding_per_slab) << c.name;
    EXPECT_EQ(layout.unused_slab_bytes, 0) << c.name;
  }
}

TEST(SlabPool, RandomUseKeepsEveryPageWithOneOwner) {
  const KvLayout layout = KvLayout::Make(
      {{false, true, 2, 32}, {false, true, 2, 32}, {true, true, 1, 32}}, 64, DType::kF32);
  ASSERT_EQ(layout.full_pages_per_slab, 4);
  std::mt19937 rng(1);
  SlabPool pool(layout, 9);
  std::vector<FullPage> full;
  std::vector<SlidingPage> sliding;
  std::set<int32_t> full_ids, sliding_ids;
  const int num_steps = Rounds(200'000);
  for (int step = 0; step < num_steps; ++step) {
    const bool allocate = rng() % 100 < (step / 1000 % 2 == 0 ? 60u : 40u);
    const bool is_full = rng() % 2 != 0;
    if (allocate && is_full) {
      if (const auto page = pool.AllocateFull()) {
        full.push_back(*page);
        ASSERT_TRUE(full_ids.insert(static_cast<int32_t>(*page)).second);
      } else {
        ASSERT_EQ(pool.num_free_slabs(), 0);
      }
    } else if (allocate) {
      if (const auto page = pool.AllocateSliding()) {
        sliding.push_back(*page);
        ASSERT_TRUE(sliding_ids.insert(static_cast<int32_t>(*page)).second);
      } else {
        ASSERT_EQ(pool.num_free_slabs(), 0);
      }
    } else if (is_full && !full.empty()) {
      std::swap(full[rng() % full.size()], full.back());
      pool.Free(full.back());
      full_ids.erase(static_cast<int32_t>(full.back()));
      full.pop_back();
    } else if (!is_full && !sliding.empty()) {
      std::swap(sliding[rng() % sliding.size()], sliding.back());
      pool.Free(sliding.back());
      sliding_ids.erase(static_cast<int32_t>(sliding.back()));
      sliding.pop_back();
    }
    std::set<int32_t> slabs;
    for (const int32_t id : full_ids) slabs.insert(id / 4);
    for (const int32_t id : sliding_ids)
      ASSERT_TRUE(slabs.insert(id).second) << "a slab of both kinds";
    ASSERT_FALSE(slabs.contains(0));
    ASSERT_EQ(pool.num_free_slabs() + static_cast<int32_t>(slabs.size()), pool.num_slabs());
  }
}

TEST(SlabPool, FreeingTwiceIsABug) {
  SlabPool pool(KvLayout::Make({{false, true, 1, 32}, {true, true, 1, 32}}, 64, DType::kF32), 3);
  const FullPage page = *pool.AllocateFull();
  pool.Free(page);
  EXPECT_EXIT(pool.Free(page), testing::ExitedWithCode(70), "is not taken");
  EXPECT_EXIT(pool.Free(FullPage{0}), testing::ExitedWithCode(70), "page 0");
  EXPECT_EXIT(pool.Free(SlidingPage::kNone), testing::ExitedWithCode(70), "page -1");
}

}  // namespace
}  // namespace lapidary
