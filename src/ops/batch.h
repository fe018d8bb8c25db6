// Batch: the rows of one step and where each row's sequence keeps its KV. Plain data, made by the
// engine.
#ifndef LAPIDARY_OPS_BATCH_H_
#define LAPIDARY_OPS_BATCH_H_

#include <cstdint>
#include <vector>

#include "kv/layout.h"

namespace lapidary {

// The rows of one sequence in this step: positions first_position .. first_position + num_rows - 1,
// in order. Tables are indexed by position / 64. Cells that this step reads or writes hold a page:
// full pages for positions 0 up to the last row, sliding pages from first_position - window + 1 (at
// least 0) up to the last row.
struct SequenceRows {
  int32_t first_row = 0;
  int32_t num_rows = 0;
  int32_t first_position = 0;
  const FullPage* full_pages = nullptr;
  const SlidingPage* sliding_pages = nullptr;
  int32_t num_pages = 0;  // cells in each table
};

struct Batch {
  std::vector<int32_t> tokens;          // [T]
  std::vector<int32_t> positions;       // [T]
  std::vector<SequenceRows> sequences;  // cover all rows, ascending
  // Rows whose hidden state and logits are wanted, ascending: decode and verify rows, the last row
  // of a prompt, all rows when the prompt is scored. In models with shared KV layers the others
  // stop after the last layer that owns KV. May be empty.
  std::vector<int32_t> output_rows;

  int64_t num_rows() const { return static_cast<int64_t>(tokens.size()); }
};

}  // namespace lapidary

#endif  // LAPIDARY_OPS_BATCH_H_
