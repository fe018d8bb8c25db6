#include "ops/cases/kv_cases.h"

#include <algorithm>

namespace lapidary {
namespace {

// The layer is the second of two in a page, pages come three to a slab, and a slab ends in unused
// bytes.
constexpr int kLayers = 2, kPagesPerSlab = 3;

int FirstKey(int end, int window) { return window > 0 ? std::max(0, end - window) : 0; }
int FirstRow(const CaseSequence& s) { return std::max(s.context - s.num_rows, 0); }
int NumCells(const CaseSequence& s) { return (s.context + kPageTokens - 1) / kPageTokens; }

// The first table cell a sequence needs: of its first visible key, or, where nothing is read, of
// its first row.
int FirstCell(const CaseSequence& s, int window, bool reads) {
  return (reads ? FirstKey(FirstRow(s) + 1, window) : FirstRow(s)) / kPageTokens;
}

}  // namespace

LayerKv PagedCase::Kv(char* base) const {
  LayerKv kv;
  kv.base = base;
  kv.dtype = DType::kBf16;
  kv.num_kv_heads = shape_.num_kv_heads;
  kv.head_dim = shape_.head_dim;
  kv.fold_columns = shape_.fold_columns;
  const int64_t layer_bytes = shape_.num_kv_heads * kv.head_bytes();
  // A cache of a gigabyte is there to be timed: without a second layer it is half as large.
  const int64_t layers = num_pages_ * layer_bytes > (int64_t{1} << 28) ? 1 : kLayers;
  kv.page_bytes = layers * layer_bytes;
  kv.offset = (layers - 1) * layer_bytes;
  kv.pages_per_slab = kPagesPerSlab;
  kv.slab_bytes = kPagesPerSlab * kv.page_bytes + int64_t{1024} * 2;
  kv.num_pages = num_pages_;
  return kv;
}

LayerKv PagedCase::ScratchKv(char* base) const {
  LayerKv kv = Kv(base);
  kv.page_bytes = kv.slab_bytes = shape_.num_kv_heads * kv.head_bytes();
  kv.offset = 0;
  kv.pages_per_slab = 1;
  kv.num_pages = num_scratch_pages_;
  return kv;
}

void PagedCase::Make(TensorSet& set, bool filled) {
  std::stable_partition(sequences_.begin(), sequences_.end(),
                        [](const CaseSequence& s) { return !s.chunk; });
  MakeTables(set, filled);
  MakeRows(set);
  std::vector<Bf16> cache(
      static_cast<size_t>(num_pages_ / kPagesPerSlab * Kv(nullptr).slab_bytes / 2), Bf16{0xffff});
  std::vector<Bf16> scratch(
      static_cast<size_t>(num_scratch_pages_ * ScratchKv(nullptr).page_bytes / 2), Bf16{0xffff});
  if (filled) Fill(set, cache, scratch);
  cache_ = set.Vector(DType::kBf16, static_cast<int64_t>(cache.size()), cache.data());
  scratch_ = set.Vector(DType::kBf16, static_cast<int64_t>(scratch.size()), scratch.data());
}

// Pages are handed out in random order; id 0 belongs to nobody.
void PagedCase::MakeTables(TensorSet& set, bool filled) {
  int32_t num_cells = 0, max_cells = 1;
  for (const CaseSequence& s : sequences_) {
    num_cells += NumCells(s) - FirstCell(s, shape_.window, filled);
    max_cells = std::max(max_cells, NumCells(s));
  }
  num_pages_ = (num_cells + 1 + kPagesPerSlab - 1) / kPagesPerSlab * kPagesPerSlab;
  std::vector<int32_t> free(static_cast<size_t>(num_cells));
  for (size_t i = 0; i < free.size(); ++i) free[i] = static_cast<int32_t>(i) + 1;
  std::shuffle(free.begin(), free.end(), set.rng());
  std::vector<int32_t> table(sequences_.size() * static_cast<size_t>(max_cells), -1);
  pages_.clear();
  for (size_t b = 0; b < sequences_.size(); ++b) {
    const CaseSequence& s = sequences_[b];
    std::vector<int32_t> pages(static_cast<size_t>(NumCells(s)), -1);
    // A chunk's rows read sliding keys from scratch only: every second cell has no page at all.
    for (auto cell = static_cast<size_t>(FirstCell(s, shape_.window, filled)); cell < pages.size();
         ++cell) {
      if (s.chunk && shape_.window > 0 && cell % 2 == 0) continue;
      pages[cell] = free.back();
      free.pop_back();
    }
    std::copy(pages.begin(), pages.end(),
              table.begin() + static_cast<std::ptrdiff_t>(b) * max_cells);
    pages_.push_back(std::move(pages));
  }
  table_ = set.Add(DType::kI32, static_cast<int64_t>(sequences_.size()), max_cells, table.data());
}

void PagedCase::MakeRows(TensorSet& set) {
  std::vector<int32_t> positions, key_ends, slots, chunks;
  spans_.clear();
  num_scratch_pages_ = max_sequence_rows_ = 1;
  for (size_t b = 0; b < sequences_.size(); ++b) {
    const CaseSequence& s = sequences_[b];
    const auto slot = static_cast<int32_t>(b), chunk = static_cast<int32_t>(spans_.size());
    if (s.is_padding()) {
      const size_t end = positions.size() + static_cast<size_t>(s.num_rows);
      positions.resize(end, 0);
      key_ends.resize(end, 0);
      slots.resize(end, -1);
      chunks.resize(end, -1);
      continue;
    }
    if (s.chunk) {
      const int first_cell = FirstCell(s, shape_.window, true);
      spans_.push_back({static_cast<int32_t>(positions.size()), s.num_rows, FirstRow(s), slot,
                        num_scratch_pages_, first_cell});
      num_scratch_pages_ += NumCells(s) - first_cell;
    } else {
      max_sequence_rows_ = std::max(max_sequence_rows_, s.num_rows);
    }
    for (int position = FirstRow(s); position < s.context; ++position) {
      positions.push_back(position);
      key_ends.push_back(position + 1);
      slots.push_back(slot);
      chunks.push_back(s.chunk ? chunk : -1);
    }
  }
  num_rows_ = static_cast<int64_t>(positions.size());
  positions_ = set.Ids(positions);
  key_ends_ = set.Ids(key_ends);
  slots_ = set.Ids(slots);
  chunks_ = set.Ids(chunks);
}

RowSet PagedCase::Rows(const TensorSet& set) const {
  RowSet rows;
  rows.positions = set[positions_];
  rows.key_ends = set[key_ends_];
  rows.slots = set[slots_];
  rows.chunks = set[chunks_];
  rows.full_pages = rows.sliding_pages = set[table_];
  rows.spans = spans_;
  rows.max_sequence_rows = max_sequence_rows_;
  return rows;
}

void PagedCase::Fill(TensorSet& set, std::vector<Bf16>& cache, std::vector<Bf16>& scratch) {
  const LayerKv kv = Kv(reinterpret_cast<char*>(cache.data()));
  const LayerKv scratch_kv = ScratchKv(reinterpret_cast<char*>(scratch.data()));
  // Enough different numbers; a cache of gigabytes repeats them.
  const auto dim = static_cast<size_t>(kv.folded() ? kv.row_columns() : kv.head_dim);
  std::vector<Bf16> pool(size_t{1} << 22);
  std::normal_distribution<float> normal(0.0f, 0.5f);
  for (Bf16& value : pool) value = ToBf16(normal(set.rng()));
  size_t next_span = 0;
  for (size_t b = 0; b < sequences_.size(); ++b) {
    const CaseSequence& s = sequences_[b];
    const bool in_scratch = s.chunk && shape_.window > 0;
    const ChunkSpan* span = s.chunk ? &spans_[next_span++] : nullptr;
    for (int key = FirstKey(FirstRow(s) + 1, shape_.window); key < s.context; ++key) {
      const int cell = key / kPageTokens;
      const int32_t page = in_scratch ? span->scratch_page + cell - span->first_cell
                                      : pages_[b][static_cast<size_t>(cell)];
      const LayerKv& to = in_scratch ? scratch_kv : kv;
      for (int head = 0; head < shape_.num_kv_heads; ++head)
        for (int part = 0; part < (kv.folded() ? 1 : 2); ++part)
          std::copy_n(
              pool.begin() + static_cast<std::ptrdiff_t>(set.rng()() % (pool.size() - dim)), dim,
              reinterpret_cast<Bf16*>(part == 0 ? to.Keys(page, head) : to.Values(page, head)) +
                  static_cast<size_t>(key % kPageTokens) * dim);
    }
  }
}

AttentionSpec PagedCase::Spec(const TensorSet& set) const {
  AttentionSpec spec;
  spec.kv = Kv(static_cast<char*>(set[cache_].data));
  spec.full = shape_.window == 0;
  if (!spec.full) spec.scratch = ScratchKv(static_cast<char*>(set[scratch_].data));
  spec.window = shape_.window;
  spec.num_heads = shape_.num_heads;
  spec.rope = spec.full ? RopeSpec{1e6, 0.25} : RopeSpec{1e4, 1.0};
  return spec;
}

int64_t PagedCase::VisibleKeys() const {
  int64_t keys = 0;
  for (const CaseSequence& s : sequences_)
    if (!s.is_padding()) keys += s.context - FirstKey(FirstRow(s) + 1, shape_.window);
  return keys;
}

int64_t PagedCase::VisiblePairs() const {
  int64_t pairs = 0;
  for (const CaseSequence& s : sequences_)
    for (int end = FirstRow(s) + 1; end <= s.context; ++end)
      pairs += end - FirstKey(end, shape_.window);
  return pairs;
}

}  // namespace lapidary
