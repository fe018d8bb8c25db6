#include "kv/prefix_cache.h"

#include <gtest/gtest.h>

#include <numeric>

namespace lapidary {
namespace {

// One sliding page is two full pages; a window of 100 is seen from two pages, at worst.
class PrefixCacheTest : public testing::Test {
 protected:
  static constexpr CacheSalt kSalt{1}, kOtherSalt{2};

  // A sequence of `cells` pages that is computed, shown and gone; it keeps the sliding pages of
  // cells from `first_sliding` on.
  void Remember(const std::vector<int32_t>& tokens, int first_sliding,
                const CacheSalt& salt = kSalt) {
    std::vector<PrefixNode*> nodes;
    for (size_t cell = 0; (cell + 1) * kPageTokens <= tokens.size(); ++cell) {
      FullPage full = Take<FullPage>();
      SlidingPage sliding =
          static_cast<int>(cell) >= first_sliding ? Take<SlidingPage>() : SlidingPage::kNone;
      nodes.push_back(cache_.Register(salt, cell == 0 ? nullptr : nodes.back(),
                                      std::span(tokens).subspan(cell * kPageTokens, kPageTokens),
                                      full, sliding, true));
      if (sliding != SlidingPage::kNone) cache_.LeaveSliding(nodes.back());
    }
    for (PrefixNode* node : nodes) cache_.Leave(node);
    cache_.CheckInvariants();
  }
  template <typename Page>
  Page Take() {
    auto page = pool_.TakeFromLiveSlab<Page>();
    if (!page) page = pool_.TakeFromIdleSlab<Page>();
    return page.value();
  }
  static std::vector<int32_t> Tokens(int count, int32_t first = 0) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    std::iota(tokens.begin(), tokens.end(), first);
    return tokens;
  }

  KvLayout layout_ = KvLayout::Make({{false, true, 2, 32}, {true, true, 1, 32}}, 100, DType::kF32);
  SlabPool pool_{layout_, 40};
  PrefixCache cache_{layout_, pool_};
};

TEST_F(PrefixCacheTest, AHitNeedsTheLastWindowToo) {
  const std::vector<int32_t> tokens = Tokens(6 * kPageTokens);
  Remember(tokens, 0);
  EXPECT_EQ(cache_.Find(kSalt, tokens).num_cells, 6);
  EXPECT_EQ(cache_.Find(kSalt, std::span(tokens).first(200)).num_cells, 3);
  EXPECT_EQ(cache_.Find(kOtherSalt, tokens).num_cells, 0);
  std::vector<int32_t> other = tokens;
  other[130] = -5;
  EXPECT_EQ(cache_.Find(kSalt, other).num_cells, 2);

  const std::vector<int32_t> bare = Tokens(6 * kPageTokens, 5000);
  Remember(bare, 4);
  PrefixCache::Match match = cache_.Find(kSalt, bare);
  EXPECT_EQ(match.num_known_cells, 6);
  EXPECT_EQ(match.num_cells, 6);  // the row at 384 sees 285 to 383: cells 4 and 5
  match = cache_.Find(kSalt, std::span(bare).first(5 * kPageTokens));
  EXPECT_EQ(match.num_known_cells, 5);
  EXPECT_EQ(match.num_cells, 0);  // the row at 320 sees 221 on: cell 3 has no sliding page
}

TEST_F(PrefixCacheTest, TheSamePagesAreKeptOnce) {
  const std::vector<int32_t> tokens = Tokens(kPageTokens);
  FullPage full = Take<FullPage>();
  const FullPage first = full;
  SlidingPage sliding = SlidingPage::kNone;
  PrefixNode* node = cache_.Register(kSalt, nullptr, tokens, full, sliding, true);
  FullPage twin = Take<FullPage>();
  SlidingPage window = Take<SlidingPage>();
  const SlidingPage given = window;
  EXPECT_EQ(cache_.Register(kSalt, nullptr, tokens, twin, window, true), node);
  EXPECT_EQ(twin, first);    // the twin's own page is free again
  EXPECT_EQ(window, given);  // the node had none
  EXPECT_EQ(pool_.num_users(first), 2);
  EXPECT_EQ(pool_.num_live_pages(PageKind::kFull), 1);
  cache_.LeaveSliding(node);
  cache_.Leave(node);
  cache_.Leave(node);
  // An idle page gives way to one in use.
  FullPage newer = Take<FullPage>();
  const FullPage own = newer;
  SlidingPage none = SlidingPage::kNone;
  EXPECT_EQ(cache_.Register(kSalt, nullptr, tokens, newer, none, true), node);
  EXPECT_EQ(newer, own);
  EXPECT_EQ(node->full, own);
  cache_.Leave(node);
  cache_.CheckInvariants();
}

TEST_F(PrefixCacheTest, EvictsTheOldestAndSlidingPagesFirst) {
  const std::vector<int32_t> old = Tokens(2 * kPageTokens), fresh = Tokens(2 * kPageTokens, 5000);
  Remember(old, 0);
  Remember(fresh, 0);
  const auto num_cells = [&](const std::vector<int32_t>& tokens) {
    return cache_.Find(kSalt, tokens).num_cells;
  };
  EXPECT_TRUE(cache_.EvictOne());
  EXPECT_EQ(num_cells(fresh), 2);
  EXPECT_LT(num_cells(old), 2);
  EXPECT_EQ(cache_.Find(kSalt, old).num_known_cells, 2);  // its full pages are still there
  while (cache_.Find(kSalt, old).num_known_cells > 0) ASSERT_TRUE(cache_.EvictOne());
  EXPECT_EQ(cache_.Find(kSalt, fresh).num_known_cells, 2);
  // In use: nothing of it can go.
  const PrefixCache::Match match = cache_.Find(kSalt, fresh);
  cache_.Enter(match, 2, 0);
  EXPECT_FALSE(cache_.EvictOne());
  for (int cell = 2; cell-- > 0;) {
    cache_.LeaveSliding(match.nodes[static_cast<size_t>(cell)]);
    cache_.Leave(match.nodes[static_cast<size_t>(cell)]);
  }
  EXPECT_EQ(cache_.Flush(), 4);
  EXPECT_EQ(pool_.num_free_slabs(), pool_.num_slabs());
  EXPECT_EQ(cache_.num_nodes(), 0);
}

TEST_F(PrefixCacheTest, AForgottenNodeIsNotFoundAgain) {
  const std::vector<int32_t> tokens = Tokens(3 * kPageTokens);
  Remember(tokens, 0);
  const PrefixCache::Match match = cache_.Find(kSalt, tokens);
  cache_.Enter(match, 2, 0);
  cache_.Forget(match.nodes[1]);
  EXPECT_EQ(cache_.Find(kSalt, tokens).num_known_cells, 1);
  for (int cell = 2; cell-- > 0;) {
    cache_.LeaveSliding(match.nodes[static_cast<size_t>(cell)]);
    cache_.Leave(match.nodes[static_cast<size_t>(cell)]);
  }
  cache_.CheckInvariants();
  Remember(tokens, 0);
  EXPECT_EQ(cache_.Find(kSalt, tokens).num_cells, 3);
  cache_.Flush();
  EXPECT_EQ(pool_.num_free_slabs(), pool_.num_slabs());
}

}  // namespace
}  // namespace lapidary
