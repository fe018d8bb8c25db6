// Bpe: the merges of a tokenizer and how they are applied to one piece of text.
#ifndef LAPIDARY_TEXT_BPE_H_
#define LAPIDARY_TEXT_BPE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace lapidary {

class Bpe {
 public:
  struct Merge {
    int32_t left, right, result;
  };

  // merges in rank order; a pair that occurs again keeps its later rank, as the reference's map
  // does.
  explicit Bpe(const std::vector<Merge>& merges);
  Bpe() = default;

  // Applies merges to ids[first..) until none fits: lowest rank first, leftmost first. O(n log n).
  void Apply(std::vector<int32_t>& ids, size_t first) const;

 private:
  struct Slot {
    uint64_t key = kEmpty;
    int32_t rank = 0, result = 0;
  };
  static constexpr uint64_t kEmpty = UINT64_MAX;

  const Slot* Find(int32_t left, int32_t right) const;
  void ApplyShort(std::vector<int32_t>& ids, size_t first) const;
  void ApplyLong(std::vector<int32_t>& ids, size_t first) const;

  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
};

}  // namespace lapidary

#endif  // LAPIDARY_TEXT_BPE_H_
