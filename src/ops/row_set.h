// RowSet: the rows an op works on: where each is, whose cache it reads and how far. Rows of a
// batch, or the subset that goes on past the KV layers, or the rows of a drafting pass.
#ifndef LAPIDARY_OPS_ROW_SET_H_
#define LAPIDARY_OPS_ROW_SET_H_

#include <cstdint>
#include <vector>

#include "ops/batch.h"

namespace lapidary {

// One sequence's page tables, cells by position / 64; raw ids, -1 where there is no page.
struct PageTables {
  const int32_t* full = nullptr;
  const int32_t* sliding = nullptr;
  int32_t num_pages = 0;
};

struct RowSet {
  std::vector<int32_t> positions;  // [T] for RoPE, and where K and V of the row are stored
  // [T] the row sees the keys of positions below this; in a sliding layer the last `window` of
  // them.
  std::vector<int32_t> key_ends;
  std::vector<int32_t> sequences;  // [T] index into tables
  std::vector<PageTables> tables;

  int64_t num_rows() const { return static_cast<int64_t>(positions.size()); }

  static RowSet FromBatch(const Batch& batch);
  RowSet Subset(const std::vector<int32_t>& rows) const;
};

}  // namespace lapidary

#endif  // LAPIDARY_OPS_ROW_SET_H_
