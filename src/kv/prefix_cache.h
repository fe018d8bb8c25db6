// PrefixCache: pages of finished and running sequences by the tokens they hold, so that a prompt
// that begins alike is not computed again. A tree of nodes of 64 tokens; a node keeps its full page
// and, apart from it, its sliding page. One thread.
//
// A node lives while a sequence runs through it (`Enter`), has children or keeps pages. Pages
// without users are evicted by least recent use, the sliding page of a node before its full page.
#ifndef LAPIDARY_KV_PREFIX_CACHE_H_
#define LAPIDARY_KV_PREFIX_CACHE_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "kv/slab_pool.h"

namespace lapidary {

// Prompts share pages only under the same salt.
using CacheSalt = std::array<uint8_t, 32>;

struct PrefixNode {
  uint64_t id = 0;
  PrefixNode* parent = nullptr;
  std::array<int32_t, kPageTokens> tokens{};
  FullPage full = FullPage::kNone;
  SlidingPage sliding = SlidingPage::kNone;
  int32_t num_users = 0;  // sequences that run through it
  PrefixNode *first_child = nullptr, *next_sibling = nullptr, *previous_sibling = nullptr;
  bool forgotten = false;  // not to be found again; goes with its last user
  // Of least recent use; pages that no turn ends in are the first to go.
  uint64_t full_stamp = 0, sliding_stamp = 0;
  uint64_t filed_full = 0, filed_sliding = 0;  // the stamps it is filed under, 0: not filed
};

class PrefixCache {
 public:
  PrefixCache(const KvLayout& layout, SlabPool& pool);
  ~PrefixCache();

  // The way of `tokens` through the tree.
  struct Match {
    std::vector<PrefixNode*> nodes;  // [0, num_cells) can be used: full pages and the last window
    int num_cells = 0;
    int num_known_cells = 0;  // with full pages, windows or not
  };
  Match Find(const CacheSalt& salt, std::span<const int32_t> tokens) const;

  // A sequence starts to use the first `num_cells` nodes of a match: their full pages and the
  // sliding pages of cells >= first_sliding_cell.
  void Enter(const Match& match, int num_cells, int first_sliding_cell);
  // The page of the next 64 tokens of a sequence is complete. The sequence uses the pages it gives;
  // on return they are those of the node, which may be another sequence's, equal to the bit.
  // parent: the node of the cell before, or null for the first cell. `keeps_window`: the sliding
  // page belongs to a window worth keeping.
  PrefixNode* Register(const CacheSalt& salt, PrefixNode* parent, std::span<const int32_t> tokens,
                       FullPage& full, SlidingPage& sliding, bool keeps_window);
  // The sequence lets go of a node's sliding page, or of the node with its full page.
  void LeaveSliding(PrefixNode* node);
  void Leave(PrefixNode* node);
  // Marks the sliding page as part of a window worth keeping, and both as just used.
  void Touch(PrefixNode* node, bool keeps_window);
  // Nobody finds the node or what lies behind it again.
  void Forget(PrefixNode* node);

  // Frees one page, the least recently used; false when every page is in use.
  bool EvictOne();
  // Frees this idle page, a full page together with everything behind its node.
  void Evict(FullPage page);
  void Evict(SlidingPage page);
  // Frees every idle page and returns how many there were.
  int64_t Flush();

  int64_t num_nodes() const { return static_cast<int64_t>(nodes_.size()); }
  // For tests.
  void CheckInvariants() const;

 private:
  using Key = std::pair<uint64_t, uint64_t>;  // stamp, id
  static uint64_t HashOf(uint64_t parent_id, std::span<const int32_t> tokens);
  PrefixNode* Child(uint64_t parent_id, std::span<const int32_t> tokens) const;
  PrefixNode* RootOf(const CacheSalt& salt);
  void DropSlidingPage(PrefixNode* node);
  // An unused leaf; and its parents while nothing is left of them.
  void Remove(PrefixNode* node);
  void RemoveLeaf(PrefixNode* node);
  void RemoveSubtree(PrefixNode* node);  // none of it is used
  static bool IsEmpty(const PrefixNode* node);
  void File(PrefixNode* node);  // into or out of the lists of what can be evicted

  const bool has_full_, has_sliding_;
  const int window_;
  SlabPool& pool_;
  uint64_t clock_ = 1, next_id_ = 1;
  std::unordered_map<uint64_t, std::unique_ptr<PrefixNode>> nodes_;  // by id, roots too
  std::map<CacheSalt, PrefixNode*> roots_;
  std::unordered_multimap<uint64_t, PrefixNode*> children_;  // by HashOf
  std::map<Key, PrefixNode*> idle_leaves_, idle_sliding_;
  std::vector<PrefixNode*> full_owner_, sliding_owner_;  // by page
};

}  // namespace lapidary

#endif  // LAPIDARY_KV_PREFIX_CACHE_H_
