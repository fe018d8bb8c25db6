#include "text/token_index.h"

#include <algorithm>
#include <cstring>

namespace lapidary {
namespace {

// Both halves of a 128-bit product: every bit of the input reaches every bit of the hash.
uint64_t Fold(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t Hash(std::string_view content) {
  constexpr uint64_t kFirst = 0x9E3779B97F4A7C15u, kSecond = 0xD1B54A32D192ED03u;
  uint64_t hash = content.size() * kFirst;
  const char* at = content.data();
  size_t left = content.size();
  for (; left >= 8; left -= 8, at += 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    hash = Fold(hash ^ word, kSecond);
  }
  uint64_t word = 0;
  std::memcpy(&word, at, left);
  return Fold(hash ^ word, kFirst);
}

}  // namespace

TokenIndex::TokenIndex(const std::vector<std::string>& tokens) {
  size_t capacity = 16;
  while (capacity < tokens.size() * 2) capacity *= 2;
  slots_.resize(capacity);
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].empty()) continue;
    const uint64_t hash = Hash(tokens[id]);
    const auto tag = static_cast<uint32_t>(hash >> 32);
    size_t at = hash & (capacity - 1);
    while (slots_[at].id >= 0 &&
           !(slots_[at].tag == tag && tokens[static_cast<size_t>(slots_[at].id)] == tokens[id]))
      at = (at + 1) & (capacity - 1);
    slots_[at] = {tag, static_cast<int32_t>(id)};
  }
}

int32_t TokenIndex::Find(std::string_view content, const std::vector<std::string>& tokens) const {
  return FindHashed(Hash(content), content, tokens);
}

int32_t TokenIndex::FindHashed(uint64_t hash, std::string_view content,
                               const std::vector<std::string>& tokens) const {
  if (slots_.empty()) return -1;
  const auto tag = static_cast<uint32_t>(hash >> 32);
  for (size_t at = hash & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
    const Slot& slot = slots_[at];
    if (slot.id < 0) return -1;
    if (slot.tag == tag && tokens[static_cast<size_t>(slot.id)] == content) return slot.id;
  }
}

void TokenIndex::FindAll(std::span<const std::string_view> contents,
                         const std::vector<std::string>& tokens, std::span<int32_t> ids) const {
  if (slots_.empty()) {
    std::fill(ids.begin(), ids.end(), -1);
    return;
  }
  // Three rounds over a block: ask for the slots, ask for the contents they name, compare.
  constexpr size_t kBlock = 64;
  uint64_t hashes[kBlock];
  for (size_t begin = 0; begin < contents.size(); begin += kBlock) {
    const size_t count = std::min(kBlock, contents.size() - begin);
    for (size_t i = 0; i < count; ++i) {
      hashes[i] = Hash(contents[begin + i]);
      __builtin_prefetch(&slots_[hashes[i] & (slots_.size() - 1)]);
    }
    for (size_t i = 0; i < count; ++i) {
      const int32_t id = slots_[hashes[i] & (slots_.size() - 1)].id;
      if (id >= 0) __builtin_prefetch(&tokens[static_cast<size_t>(id)]);
    }
    for (size_t i = 0; i < count; ++i)
      ids[begin + i] = FindHashed(hashes[i], contents[begin + i], tokens);
  }
}

}  // namespace lapidary
