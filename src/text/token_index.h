// TokenIndex: from the content of a vocabulary entry to its id. Flat, open addressing, at most half
// full; the contents stay where the tokenizer keeps them.
#ifndef LAPIDARY_TEXT_TOKEN_INDEX_H_
#define LAPIDARY_TEXT_TOKEN_INDEX_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lapidary {

class TokenIndex {
 public:
  // Ids of `tokens` by content; empty entries are left out, of equal entries the highest id counts.
  explicit TokenIndex(const std::vector<std::string>& tokens);
  TokenIndex() = default;

  // -1: none. `tokens` is what the index was made of.
  int32_t Find(std::string_view content, const std::vector<std::string>& tokens) const;
  // The ids of many contents: their cache misses overlap. ids has the size of contents.
  void FindAll(std::span<const std::string_view> contents, const std::vector<std::string>& tokens,
               std::span<int32_t> ids) const;

 private:
  struct Slot {
    uint32_t tag = 0;  // upper half of the hash
    int32_t id = -1;
  };
  int32_t FindHashed(uint64_t hash, std::string_view content,
                     const std::vector<std::string>& tokens) const;

  std::vector<Slot> slots_;  // a power of two
};

}  // namespace lapidary

#endif  // LAPIDARY_TEXT_TOKEN_INDEX_H_
