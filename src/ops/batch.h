// Batch: the rows of one step and where each row's sequence keeps its KV.
#ifndef LAPIDARY_OPS_BATCH_H_
#define LAPIDARY_OPS_BATCH_H_

#include <cstdint>
#include <span>
#include <vector>

#include "ops/row_set.h"

namespace lapidary {

// Decode and verify rows come first, then the chunks. Full pages exist for all positions up to a
// row's own; sliding pages for the window of every decode row and of every chunk's last row. A
// chunk row's sliding K and V go to its page as well where the table has one.
struct Batch {
  Tensor tokens;  // [T] i32
  RowSet rows;
  // Rows whose hidden state and logits are wanted, ascending: decode and verify rows, the last row
  // of a prompt, all rows when the prompt is scored. In models with shared KV layers the others
  // stop after the last layer that owns KV. May be empty.
  Tensor output_rows;    // [O] i32
  Tensor output_tokens;  // [O] i32
  RowSet output;         // these rows alone
  std::span<const WindowCopy> window_copies;
  // [T], [O] i32: the place of a decode row behind the newest token of its sequence, for
  // SlotStates::PlaceRows; -1: a chunk's.
  Tensor offsets = {}, output_offsets = {};

  int64_t num_rows() const { return rows.num_rows(); }
};

// Puts a batch together in host memory. Keeps its capacity: after a first step of the largest size
// nothing is allocated.
class BatchBuilder {
 public:
  // The page tables [S,P] i32 of all slots must outlive the batches.
  BatchBuilder(Tensor full_pages, Tensor sliding_pages, int window)
      : full_pages_(full_pages), sliding_pages_(sliding_pages), window_(window) {}

  void Clear();
  // Rows at first_position and on, all of them output rows. Before any chunk.
  void AddDecode(int32_t slot, int32_t first_position, std::span<const int32_t> tokens);
  // Rows at first_position and on, the last num_outputs of them output rows. window_pages: of the
  // cells before the rows that their window reaches, from FirstCell on. Takes ScratchPages
  // of scratch.
  void AddChunk(int32_t slot, int32_t first_position, std::span<const int32_t> tokens,
                int32_t num_outputs, std::span<const SlidingPage> window_pages);
  // owners: [S], may be empty. Valid until the next Clear.
  Batch Build(std::span<const uint64_t> owners = {});

  // The first cell that a row at first_position may read in a sliding layer.
  static int32_t FirstCell(int window, int first_position);
  // Scratch pages that a chunk takes.
  static int32_t ScratchPages(int window, int first_position, int num_rows);
  int32_t num_scratch_pages() const { return num_scratch_pages_; }  // page 0 included

 private:
  struct Rows {
    std::vector<int32_t> tokens, positions, key_ends, slots, chunks, offsets;
    std::vector<ChunkSpan> spans;
    int32_t max_sequence_rows = 1;
    void Clear();
    void Add(int32_t token, int32_t position, int32_t slot, int32_t chunk, int32_t offset = -1);
  };
  RowSet View(Rows& rows, std::span<const uint64_t> owners) const;

  Tensor full_pages_, sliding_pages_;
  int window_;
  Rows rows_, output_;
  std::vector<int32_t> output_rows_;
  std::vector<WindowCopy> window_copies_;
  int32_t num_scratch_pages_ = 1;
};

}  // namespace lapidary

#endif  // LAPIDARY_OPS_BATCH_H_
