// RowSet: the rows an op works on: where each is, whose cache it reads and how far. Rows of a
// batch, the subset that goes on past the KV layers, or the rows of a drafting pass. Its tensors
// lie where the backend reads them.
#ifndef LAPIDARY_OPS_ROW_SET_H_
#define LAPIDARY_OPS_ROW_SET_H_

#include <cstdint>
#include <span>

#include "device/tensor.h"
#include "kv/layout.h"

namespace lapidary {

// The rows of one prompt chunk. Their sliding K and V lie in the step's scratch, one layer at a
// time, behind those of the window - 1 positions before them: scratch page `scratch_page` + i holds
// cell `first_cell` + i. Scratch keeps position mod 64.
struct ChunkSpan {
  int32_t first_row = 0, num_rows = 0;
  int32_t first_position = 0;
  int32_t slot = 0;
  int32_t scratch_page = 0, first_cell = 0;
};

// A page of the window before a chunk, to be brought into scratch.
struct WindowCopy {
  SlidingPage from = SlidingPage::kNone;
  int32_t to = 0;  // scratch page
};

struct RowSet {
  Tensor positions;  // [T] i32, for RoPE, and where K and V of the row are stored
  // [T] i32: the row sees the keys of positions below this; in a sliding layer the last `window` of
  // them.
  Tensor key_ends;
  Tensor slots;   // [T] i32: the row's line of the page tables
  Tensor chunks;  // [T] i32: index into `spans`; -1: sliding K and V are read from pages
  // [S,P] i32: page of each cell (position / 64) of each slot; -1 where there is none.
  Tensor full_pages, sliding_pages;
  std::span<const ChunkSpan> spans = {};
  std::span<const uint64_t> owners = {};  // [S] whose rows a slot has, for messages; may be empty
  // At most this many rows of one sequence lie outside the spans, all of them neighbours.
  int32_t max_sequence_rows = 1;

  int64_t num_rows() const { return positions.rank == 0 ? 0 : positions.rows(); }
};

}  // namespace lapidary

#endif  // LAPIDARY_OPS_ROW_SET_H_
