#include "kv/slab_pool.h"

#include <gtest/gtest.h>

#include <map>
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
    int fold_columns = 0;
  };
  for (const Case& c : {Case{"31B", 50, 10, 16, 4, 52'428'800, 5'242'880, 10, 1},
                        Case{"26B-A4B", 25, 5, 8, 2, 13'107'200, 1'310'720, 10, 1},
                        Case{"31B folded", 50, 10, 16, 4, 52'428'800, 3'276'800, 16, 1, 128},
                        Case{"26B folded", 25, 5, 8, 2, 13'107'200, 819'200, 16, 1, 128},
                        Case{"E4B", 20, 4, 2, 2, 5'242'880, 1'048'576, 5, 2},
                        Case{"E2B", 12, 3, 1, 1, 786'432, 393'216, 2, 1}}) {
    std::vector<KvLayerShape> layers(static_cast<size_t>(c.sliding),
                                     {false, true, c.sliding_heads, 256});
    layers.insert(layers.end(), static_cast<size_t>(c.full),
                  {true, true, c.full_heads, 512, c.fold_columns});
    layers.push_back({true, false, c.full_heads, 512});  // a layer that shares costs nothing
    const KvLayout layout = KvLayout::Make(layers, 512, DType::kBf16);
    EXPECT_EQ(layout.slab_bytes, c.slab_bytes) << c.name;
    EXPECT_EQ(layout.full_page_bytes, c.full_page_bytes) << c.name;
    EXPECT_EQ(layout.full_pages_per_slab, c.full_per_slab) << c.name;
    EXPECT_EQ(layout.sliding_pages_per_slab, c.sliding_per_slab) << c.name;
    EXPECT_EQ(layout.unused_slab_bytes, 0) << c.name;
  }
}

// Pages taken, shared, cached and let go at random: a slab is of one kind, the counts are those of
// a naive model, what is free comes back.
TEST(SlabPool, RandomUseAgreesWithANaiveModel) {
  const KvLayout layout = KvLayout::Make(
      {{false, true, 2, 32}, {false, true, 2, 32}, {true, true, 1, 32}}, 64, DType::kF32);
  ASSERT_EQ(layout.full_pages_per_slab, 4);
  std::mt19937 rng(1);
  SlabPool pool(layout, 9);
  struct State {
    int users = 0;
    bool cached = false;
  };
  std::map<int32_t, State> full, sliding;
  const auto change = [&](auto& model, auto none) {
    using Page = decltype(none);
    const auto choice = rng() % 6;
    if (choice < 2) {
      auto page = pool.TakeFromLiveSlab<Page>();
      if (!page) page = pool.TakeFromIdleSlab<Page>();
      if (!page) {
        ASSERT_EQ(pool.num_free_slabs(), 0);
        return;
      }
      ASSERT_FALSE(model.contains(static_cast<int32_t>(*page)));
      model[static_cast<int32_t>(*page)] = {1, false};
      return;
    }
    if (model.empty()) return;
    auto it = model.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(rng() % model.size()));
    const Page page{it->first};
    State& state = it->second;
    if (choice == 2) {
      pool.AddUser(page);
      ++state.users;
    } else if (choice < 5 && state.users > 0) {
      pool.RemoveUser(page);
      --state.users;
    } else if (choice == 5) {
      state.cached = !state.cached;
      pool.SetCached(page, state.cached);
    }
    if (state.users == 0 && !state.cached) model.erase(it);
  };
  const auto compare = [&](const auto& model, PageKind kind) {
    std::map<int32_t, bool> slabs;  // to whether one of its pages is live
    int64_t live = 0, idle = 0, live_slabs = 0;
    for (const auto& [page, state] : model) {
      slabs[page / pool.per_slab(kind)] |= state.users > 0;
      live += state.users > 0;
      idle += state.users == 0;
    }
    for (const auto& [slab, is_live] : slabs) live_slabs += is_live;
    EXPECT_EQ(pool.num_live_pages(kind), live);
    EXPECT_EQ(pool.num_idle_pages(kind), idle);
    EXPECT_EQ(pool.num_live_slabs(kind), live_slabs);
    return slabs;
  };
  for (int step = 0; step < Rounds(100'000); ++step) {
    change(full, FullPage::kNone);
    change(sliding, SlidingPage::kNone);
    const auto of_full = compare(full, PageKind::kFull);
    const auto of_sliding = compare(sliding, PageKind::kSliding);
    for (const auto& [slab, live] : of_full)
      ASSERT_FALSE(of_sliding.contains(slab)) << "a slab of both kinds";
    ASSERT_FALSE(of_full.contains(0) || of_sliding.contains(0));
    ASSERT_EQ(pool.num_free_slabs() + static_cast<int>(of_full.size() + of_sliding.size()),
              pool.num_slabs());
    if (step % 100 == 0) pool.CheckInvariants();
  }
}

TEST(SlabPool, FreeingTwiceIsABug) {
  SlabPool pool(KvLayout::Make({{false, true, 1, 32}, {true, true, 1, 32}}, 64, DType::kF32), 3);
  const FullPage page = *pool.TakeFromIdleSlab<FullPage>();
  pool.RemoveUser(page);
  EXPECT_EXIT(pool.RemoveUser(page), testing::ExitedWithCode(70), "0 users");
  EXPECT_EXIT(pool.AddUser(page), testing::ExitedWithCode(70), "0 users");
  EXPECT_EXIT(pool.RemoveUser(FullPage{0}), testing::ExitedWithCode(70), "page 0");
  EXPECT_EXIT(pool.SetCached(SlidingPage::kNone, true), testing::ExitedWithCode(70), "page -1");
}

}  // namespace
}  // namespace lapidary
