#include "ops/batch.h"

#include <algorithm>

namespace lapidary {
int32_t BatchBuilder::FirstCell(int window, int first_position) {
  return std::max(0, first_position - window + 1) / kPageTokens;
}

void BatchBuilder::Rows::Clear() {
  for (auto* list : {&tokens, &positions, &key_ends, &slots, &chunks, &offsets}) list->clear();
  spans.clear();
  max_sequence_rows = 1;
}

void BatchBuilder::Rows::Add(int32_t token, int32_t position, int32_t slot, int32_t chunk,
                             int32_t offset) {
  tokens.push_back(token);
  positions.push_back(position);
  key_ends.push_back(position + 1);
  slots.push_back(slot);
  chunks.push_back(chunk);
  offsets.push_back(offset);
}

void BatchBuilder::Clear() {
  rows_.Clear();
  output_.Clear();
  output_rows_.clear();
  window_copies_.clear();
  num_scratch_pages_ = 1;
}

void BatchBuilder::AddDecode(int32_t slot, int32_t first_position,
                             std::span<const int32_t> tokens) {
  CHECK(rows_.spans.empty(), "decode rows after a chunk");
  const auto num_rows = static_cast<int32_t>(tokens.size());
  rows_.max_sequence_rows = std::max(rows_.max_sequence_rows, num_rows);
  output_.max_sequence_rows = rows_.max_sequence_rows;
  for (int32_t i = 0; i < num_rows; ++i) {
    const int32_t token = tokens[static_cast<size_t>(i)], position = first_position + i;
    output_rows_.push_back(static_cast<int32_t>(rows_.tokens.size()));
    rows_.Add(token, position, slot, -1, i);
    output_.Add(token, position, slot, -1, i);
  }
}

void BatchBuilder::AddChunk(int32_t slot, int32_t first_position, std::span<const int32_t> tokens,
                            int32_t num_outputs, std::span<const SlidingPage> window_pages) {
  const auto num_rows = static_cast<int32_t>(tokens.size());
  CHECK(num_rows > 0 && num_outputs >= 0 && num_outputs <= num_rows, "{} rows, {} of them output",
        num_rows, num_outputs);
  const ChunkSpan span{
      static_cast<int32_t>(rows_.tokens.size()), num_rows, first_position, slot, num_scratch_pages_,
      FirstCell(window_, first_position)};
  const int32_t chunk = static_cast<int32_t>(rows_.spans.size());
  rows_.spans.push_back(span);
  num_scratch_pages_ += ScratchPages(window_, first_position, num_rows);
  const int32_t num_before = (first_position + kPageTokens - 1) / kPageTokens - span.first_cell;
  CHECK(static_cast<int32_t>(window_pages.size()) == num_before, "{} window pages, {} cells",
        window_pages.size(), num_before);
  for (int32_t i = 0; i < num_before; ++i)
    window_copies_.push_back({window_pages[static_cast<size_t>(i)], span.scratch_page + i});

  // A single output row is the last of its prompt: its window lies in pages, so it reads these.
  const int32_t first_output = num_rows - num_outputs;
  const int32_t output_chunk =
      num_outputs > 1 ? static_cast<int32_t>(output_.spans.size()) : int32_t{-1};
  if (num_outputs > 1) {
    ChunkSpan output = span;
    output.first_row = static_cast<int32_t>(output_.tokens.size());
    output.num_rows = num_outputs;
    output.first_position += first_output;
    output_.spans.push_back(output);
  }
  for (int32_t i = 0; i < num_rows; ++i) {
    const int32_t token = tokens[static_cast<size_t>(i)], position = first_position + i;
    if (i >= first_output) {
      output_rows_.push_back(static_cast<int32_t>(rows_.tokens.size()));
      output_.Add(token, position, slot, output_chunk);
    }
    rows_.Add(token, position, slot, chunk);
  }
}

int32_t BatchBuilder::ScratchPages(int window, int first_position, int num_rows) {
  const int last_cell = (first_position + num_rows - 1) / kPageTokens;
  return last_cell - FirstCell(window, first_position) + 1;
}

RowSet BatchBuilder::View(Rows& rows, std::span<const uint64_t> owners) const {
  return {ViewOf(rows.positions),
          ViewOf(rows.key_ends),
          ViewOf(rows.slots),
          ViewOf(rows.chunks),
          full_pages_,
          sliding_pages_,
          rows.spans,
          owners,
          rows.max_sequence_rows};
}

Batch BatchBuilder::Build(std::span<const uint64_t> owners) {
  return {ViewOf(rows_.tokens),   View(rows_, owners),    ViewOf(output_rows_),
          ViewOf(output_.tokens), View(output_, owners),  window_copies_,
          ViewOf(rows_.offsets),  ViewOf(output_.offsets)};
}

}  // namespace lapidary
