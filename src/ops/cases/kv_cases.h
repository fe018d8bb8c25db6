// What the attention cases share: a paged cache with rows in it.
#ifndef LAPIDARY_OPS_CASES_KV_CASES_H_
#define LAPIDARY_OPS_CASES_KV_CASES_H_

#include <string>
#include <vector>

#include "ops/cases/op_case.h"

namespace lapidary {

struct AttentionShape {
  const char* model = "";
  int num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int window = 0;        // 0: a full layer
  int fold_columns = 0;  // of a folded cache
};

// A sequence whose last row sees `context` keys, its own among them; `num_rows` rows end there. A
// chunk's sliding K and V lie in scratch. Rows of no context are padding: of no slot, without keys.
struct CaseSequence {
  int context = 0, num_rows = 1;
  bool chunk = false;

  bool is_padding() const { return context == 0; }
};

// Sequences with pages in shuffled order and the rows of one step. Keys that nobody may see are
// NaN: those past the end of a sequence, those below its window, and page 0. Chunks come last, as
// in a step.
class PagedCase {
 public:
  PagedCase(const AttentionShape& shape, std::vector<CaseSequence> sequences)
      : shape_(shape), sequences_(std::move(sequences)) {}

  // With values in every visible key, or an empty cache for rows to be stored.
  void Make(TensorSet& set, bool filled);
  AttentionSpec Spec(const TensorSet& set) const;
  RowSet Rows(const TensorSet& set) const;
  int cache() const { return cache_; }
  int scratch() const { return scratch_; }
  bool has_scratch() const { return shape_.window > 0 && !spans_.empty(); }
  int64_t num_rows() const { return num_rows_; }
  int64_t VisibleKeys() const;   // keys of all sequences, each once
  int64_t VisiblePairs() const;  // (row, key) pairs
  const AttentionShape& shape() const { return shape_; }

 private:
  void MakeTables(TensorSet& set, bool filled);
  void MakeRows(TensorSet& set);
  void Fill(TensorSet& set, std::vector<Bf16>& cache, std::vector<Bf16>& scratch);
  LayerKv Kv(char* base) const;
  LayerKv ScratchKv(char* base) const;

  AttentionShape shape_;
  std::vector<CaseSequence> sequences_;
  std::vector<std::vector<int32_t>> pages_;  // of each sequence's cells
  std::vector<ChunkSpan> spans_;
  int32_t num_pages_ = 0, num_scratch_pages_ = 1, max_sequence_rows_ = 1;
  int64_t num_rows_ = 0;
  int cache_ = 0, scratch_ = 0;
  int positions_ = 0, key_ends_ = 0, slots_ = 0, chunks_ = 0, table_ = 0;
};

}  // namespace lapidary

#endif  // LAPIDARY_OPS_CASES_KV_CASES_H_
