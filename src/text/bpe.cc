#include "text/bpe.h"

#include <algorithm>
#include <queue>

namespace lapidary {
namespace {

// Up to here a scan for the lowest rank after each merge beats a heap.
constexpr size_t kShortPiece = 24;

uint64_t Key(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

uint64_t Mix(uint64_t key) {
  key *= 0x9E3779B97F4A7C15u;
  return key ^ (key >> 29);
}

}  // namespace

Bpe::Bpe(const std::vector<Merge>& merges) {
  size_t capacity = 16;
  while (capacity < merges.size() * 2) capacity *= 2;
  slots_.resize(capacity);
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const uint64_t key = Key(merges[rank].left, merges[rank].right);
    size_t at = Mix(key) & (capacity - 1);
    while (slots_[at].key != kEmpty && slots_[at].key != key) at = (at + 1) & (capacity - 1);
    slots_[at] = {key, static_cast<int32_t>(rank), merges[rank].result};
  }
}

const Bpe::Slot* Bpe::Find(int32_t left, int32_t right) const {
  if (slots_.empty()) return nullptr;
  const uint64_t key = Key(left, right);
  for (size_t at = Mix(key) & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
    if (slots_[at].key == key) return &slots_[at];
    if (slots_[at].key == kEmpty) return nullptr;
  }
}

void Bpe::Apply(std::vector<int32_t>& ids, size_t first) const {
  const size_t count = ids.size() - first;
  if (count < 2) return;
  if (count <= kShortPiece)
    ApplyShort(ids, first);
  else
    ApplyLong(ids, first);
}

void Bpe::ApplyShort(std::vector<int32_t>& ids, size_t first) const {
  for (;;) {
    const Slot* best = nullptr;
    size_t best_at = 0;
    for (size_t i = first; i + 1 < ids.size(); ++i) {
      const Slot* slot = Find(ids[i], ids[i + 1]);
      if (slot != nullptr && (best == nullptr || slot->rank < best->rank)) {
        best = slot;
        best_at = i;
      }
    }
    if (best == nullptr) return;
    ids[best_at] = best->result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best_at) + 1);
  }
}

void Bpe::ApplyLong(std::vector<int32_t>& ids, size_t first) const {
  struct Symbol {
    int32_t id, previous, next;  // id -1: merged away
  };
  struct Candidate {
    int32_t rank, at, left, right, result;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  const auto count = static_cast<int32_t>(ids.size() - first);
  std::vector<Symbol> symbols(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i)
    symbols[static_cast<size_t>(i)] = {ids[first + static_cast<size_t>(i)], i - 1,
                                       i + 1 < count ? i + 1 : -1};
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto push = [&](int32_t at) {
    if (at < 0) return;
    const Symbol& left = symbols[static_cast<size_t>(at)];
    if (left.next < 0) return;
    const int32_t right = symbols[static_cast<size_t>(left.next)].id;
    if (const Slot* slot = Find(left.id, right))
      queue.push({slot->rank, at, left.id, right, slot->result});
  };
  for (int32_t i = 0; i < count; ++i) push(i);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbols[static_cast<size_t>(top.at)];
    // Stale: one of the two was merged since.
    if (left.id != top.left || left.next < 0 ||
        symbols[static_cast<size_t>(left.next)].id != top.right)
      continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    left.id = top.result;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = top.at;
    push(left.previous);
    push(top.at);
  }
  ids.resize(first);
  for (int32_t at = 0; at >= 0; at = symbols[static_cast<size_t>(at)].next)
    ids.push_back(symbols[static_cast<size_t>(at)].id);
}

}  // namespace lapidary
