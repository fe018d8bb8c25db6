#include "kv/prefix_cache.h"

#include <algorithm>
#include <utility>

namespace lapidary {
namespace {

size_t Index(FullPage page) { return static_cast<size_t>(page); }
size_t Index(SlidingPage page) { return static_cast<size_t>(page); }

}  // namespace

PrefixCache::PrefixCache(const KvLayout& layout, SlabPool& pool)
    : has_full_(layout.full_page_bytes > 0),
      has_sliding_(layout.sliding_page_bytes > 0),
      window_(layout.window),
      pool_(pool),
      full_owner_(static_cast<size_t>(pool.num_pages(PageKind::kFull))),
      sliding_owner_(static_cast<size_t>(pool.num_pages(PageKind::kSliding))) {}

PrefixCache::~PrefixCache() = default;

uint64_t PrefixCache::HashOf(uint64_t parent_id, std::span<const int32_t> tokens) {
  uint64_t hash = parent_id * 0x9e3779b97f4a7c15u;
  for (const int32_t token : tokens)
    hash = (hash ^ static_cast<uint32_t>(token)) * 0xff51afd7ed558ccdu ^ hash >> 29;
  return hash;
}

// The hash only finds candidates: tokens decide.
PrefixNode* PrefixCache::Child(uint64_t parent_id, std::span<const int32_t> tokens) const {
  const auto [begin, end] = children_.equal_range(HashOf(parent_id, tokens));
  for (auto it = begin; it != end; ++it) {
    PrefixNode* node = it->second;
    if (node->parent->id == parent_id &&
        std::equal(tokens.begin(), tokens.end(), node->tokens.begin()))
      return node;
  }
  return nullptr;
}

PrefixNode* PrefixCache::RootOf(const CacheSalt& salt) {
  if (const auto found = roots_.find(salt); found != roots_.end()) return found->second;
  auto root = std::make_unique<PrefixNode>();
  root->id = next_id_++;
  PrefixNode* raw = root.get();
  nodes_.emplace(raw->id, std::move(root));
  roots_.emplace(salt, raw);
  return raw;
}

PrefixCache::Match PrefixCache::Find(const CacheSalt& salt, std::span<const int32_t> tokens) const {
  Match match;
  const auto root = roots_.find(salt);
  if (root == roots_.end()) return match;
  const PrefixNode* at = root->second;
  int first_kept = 0;  // of the unbroken run of sliding pages that ends here
  for (size_t begin = 0; begin + kPageTokens <= tokens.size(); begin += kPageTokens) {
    PrefixNode* next = Child(at->id, tokens.subspan(begin, kPageTokens));
    if (next == nullptr) break;
    match.nodes.push_back(next);
    at = next;
    const auto cells = static_cast<int>(match.nodes.size());
    if (has_sliding_ && next->sliding == SlidingPage::kNone) first_kept = cells;
    // The next row is at cells * 64 and sees the window - 1 positions before it.
    const int needed = std::max(0, cells * kPageTokens - window_ + 1) / kPageTokens;
    if (!has_sliding_ || first_kept <= needed) match.num_cells = cells;
  }
  match.num_known_cells = static_cast<int>(match.nodes.size());
  return match;
}

void PrefixCache::Enter(const Match& match, int num_cells, int first_sliding_cell) {
  ++clock_;
  for (int cell = 0; cell < num_cells; ++cell) {
    PrefixNode* node = match.nodes[static_cast<size_t>(cell)];
    ++node->num_users;
    if (has_full_) pool_.AddUser(node->full);
    const bool uses_sliding = has_sliding_ && cell >= first_sliding_cell;
    if (uses_sliding) pool_.AddUser(node->sliding);
    Touch(node, uses_sliding);
  }
}

PrefixNode* PrefixCache::Register(const CacheSalt& salt, PrefixNode* parent,
                                  std::span<const int32_t> tokens, FullPage& full,
                                  SlidingPage& sliding, bool keeps_window) {
  if (parent == nullptr) parent = RootOf(salt);
  PrefixNode* node = Child(parent->id, tokens);
  if (node == nullptr) {
    auto made = std::make_unique<PrefixNode>();
    node = made.get();
    node->id = next_id_++;
    node->parent = parent;
    std::copy(tokens.begin(), tokens.end(), node->tokens.begin());
    node->next_sibling = parent->first_child;
    if (parent->first_child != nullptr) parent->first_child->previous_sibling = node;
    parent->first_child = node;
    File(parent);
    children_.emplace(HashOf(parent->id, tokens), node);
    nodes_.emplace(node->id, std::move(made));
  }
  ++node->num_users;
  const auto settle = [this, node](auto& page, auto& kept, auto& owners) {
    using Page = std::remove_reference_t<decltype(page)>;
    if (page == Page::kNone || page == kept) return;
    if (kept != Page::kNone && pool_.num_users(kept) > 0) {
      pool_.RemoveUser(page);
      pool_.AddUser(kept);
      page = kept;
      return;
    }
    // An idle twin goes: to use it instead could open a slab that is promised to somebody.
    if (kept != Page::kNone) {
      owners[Index(kept)] = nullptr;
      pool_.SetCached(kept, false);
    }
    kept = page;
    pool_.SetCached(page, true);
    owners[Index(page)] = node;
  };
  settle(full, node->full, full_owner_);
  settle(sliding, node->sliding, sliding_owner_);
  Touch(node, keeps_window);
  return node;
}

void PrefixCache::Touch(PrefixNode* node, bool keeps_window) {
  node->full_stamp = ++clock_;
  if (keeps_window) node->sliding_stamp = clock_;
  File(node);
}

void PrefixCache::LeaveSliding(PrefixNode* node) {
  pool_.RemoveUser(node->sliding);
  File(node);
}

void PrefixCache::Leave(PrefixNode* node) {
  CHECK(node->num_users > 0, "node {} has no user", node->id);
  if (node->full != FullPage::kNone) pool_.RemoveUser(node->full);
  --node->num_users;
  if (node->num_users == 0 && node->first_child == nullptr && (node->forgotten || IsEmpty(node)))
    Remove(node);
  else
    File(node);
}

bool PrefixCache::IsEmpty(const PrefixNode* node) {
  return node->full == FullPage::kNone && node->sliding == SlidingPage::kNone;
}

void PrefixCache::Forget(PrefixNode* node) {
  if (node->forgotten) return;
  node->forgotten = true;
  const auto [begin, end] = children_.equal_range(HashOf(node->parent->id, node->tokens));
  children_.erase(
      std::find_if(begin, end, [&](const auto& entry) { return entry.second == node; }));
  File(node);
}

// A node is filed as a leaf when nobody needs it, and with its sliding page when nobody reads that.
void PrefixCache::File(PrefixNode* node) {
  const auto refile = [node](std::map<Key, PrefixNode*>& list, uint64_t& filed, uint64_t wanted) {
    if (filed == wanted) return;
    if (filed != 0) list.erase({filed, node->id});
    if (wanted != 0) list.emplace(Key{wanted, node->id}, node);
    filed = wanted;
  };
  const bool is_leaf =
      node->parent != nullptr && node->num_users == 0 && node->first_child == nullptr;
  refile(idle_leaves_, node->filed_full, is_leaf ? node->full_stamp : 0);
  const bool idle_sliding =
      node->sliding != SlidingPage::kNone && pool_.num_users(node->sliding) == 0;
  // Stamp 0 would mean "not filed": a page of no window has 1.
  refile(idle_sliding_, node->filed_sliding,
         idle_sliding ? std::max<uint64_t>(node->sliding_stamp, 1) : 0);
}

void PrefixCache::DropSlidingPage(PrefixNode* node) {
  const SlidingPage page = std::exchange(node->sliding, SlidingPage::kNone);
  File(node);
  sliding_owner_[Index(page)] = nullptr;
  pool_.SetCached(page, false);
}

void PrefixCache::RemoveLeaf(PrefixNode* node) {
  CHECK(node->num_users == 0 && node->first_child == nullptr, "node {} is in use", node->id);
  if (node->sliding != SlidingPage::kNone) DropSlidingPage(node);
  if (node->full != FullPage::kNone) {
    full_owner_[Index(node->full)] = nullptr;
    pool_.SetCached(node->full, false);
  }
  Forget(node);
  if (node->filed_full != 0) idle_leaves_.erase({node->filed_full, node->id});
  if (node->next_sibling != nullptr) node->next_sibling->previous_sibling = node->previous_sibling;
  if (node->previous_sibling != nullptr)
    node->previous_sibling->next_sibling = node->next_sibling;
  else
    node->parent->first_child = node->next_sibling;
  nodes_.erase(node->id);
}

void PrefixCache::Remove(PrefixNode* node) {
  while (true) {
    PrefixNode* parent = node->parent;
    RemoveLeaf(node);
    if (parent->first_child != nullptr || parent->num_users > 0) return;
    if (parent->parent == nullptr) {
      std::erase_if(roots_, [parent](const auto& entry) { return entry.second == parent; });
      nodes_.erase(parent->id);
      return;
    }
    if (!IsEmpty(parent) && !parent->forgotten) return File(parent);
    node = parent;
  }
}

bool PrefixCache::EvictOne() {
  const bool has_leaf = !idle_leaves_.empty(), has_sliding = !idle_sliding_.empty();
  if (!has_leaf && !has_sliding) return false;
  // At equal age the sliding page goes first.
  if (has_sliding &&
      (!has_leaf || idle_sliding_.begin()->first.first <= idle_leaves_.begin()->first.first)) {
    PrefixNode* node = idle_sliding_.begin()->second;
    DropSlidingPage(node);
    if (IsEmpty(node) && node->num_users == 0 && node->first_child == nullptr) Remove(node);
  } else {
    Remove(idle_leaves_.begin()->second);
  }
  return true;
}

// Leaves first. What lies behind an unused node is unused: a sequence runs through all nodes above
// its own.
void PrefixCache::RemoveSubtree(PrefixNode* node) {
  const uint64_t top = node->id;
  while (nodes_.contains(top)) {
    PrefixNode* leaf = node;
    while (leaf->first_child != nullptr) leaf = leaf->first_child;
    Remove(leaf);
  }
}

void PrefixCache::Evict(FullPage page) {
  PrefixNode* node = full_owner_.at(Index(page));
  CHECK(node != nullptr, "full page {} is not cached", static_cast<int32_t>(page));
  RemoveSubtree(node);
}

void PrefixCache::Evict(SlidingPage page) {
  PrefixNode* node = sliding_owner_.at(Index(page));
  CHECK(node != nullptr && pool_.num_users(page) == 0, "sliding page {} is not idle",
        static_cast<int32_t>(page));
  DropSlidingPage(node);
  if (IsEmpty(node) && node->num_users == 0 && node->first_child == nullptr) Remove(node);
}

int64_t PrefixCache::Flush() {
  const auto idle = [this] {
    return pool_.num_idle_pages(PageKind::kFull) + pool_.num_idle_pages(PageKind::kSliding);
  };
  const int64_t before = idle();
  while (EvictOne()) {
  }
  return before - idle();
}

void PrefixCache::CheckInvariants() const {
  for (const auto& [id, node] : nodes_) {
    for (const PrefixNode* child = node->first_child; child != nullptr; child = child->next_sibling)
      CHECK(child->parent == node.get() && nodes_.contains(child->id), "child {} of {}", child->id,
            id);
    if (node->full != FullPage::kNone)
      CHECK(pool_.is_cached(node->full) && pool_.num_users(node->full) == node->num_users &&
                full_owner_[Index(node->full)] == node.get(),
            "full page of node {}: {} users of {}", id, pool_.num_users(node->full),
            node->num_users);
    if (node->sliding != SlidingPage::kNone)
      CHECK(pool_.is_cached(node->sliding) && pool_.num_users(node->sliding) <= node->num_users &&
                sliding_owner_[Index(node->sliding)] == node.get(),
            "sliding page of node {}", id);
    const bool is_leaf =
        node->parent != nullptr && node->num_users == 0 && node->first_child == nullptr;
    CHECK((node->filed_full != 0) == is_leaf, "node {} filed as a leaf", id);
  }
}

}  // namespace lapidary
