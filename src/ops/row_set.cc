#include "ops/row_set.h"

namespace lapidary {

RowSet RowSet::FromBatch(const Batch& batch) {
  RowSet set;
  set.positions = batch.positions;
  for (const SequenceRows& sequence : batch.sequences) {
    CHECK(sequence.first_row == static_cast<int32_t>(set.sequences.size()) && sequence.num_rows > 0,
          "sequence starts at row {}, {} rows are taken", sequence.first_row, set.sequences.size());
    for (int32_t i = 0; i < sequence.num_rows; ++i) {
      const int32_t position = sequence.first_position + i;
      CHECK(batch.positions.at(static_cast<size_t>(sequence.first_row + i)) == position,
            "position {}", position);
      set.key_ends.push_back(position + 1);
      set.sequences.push_back(static_cast<int32_t>(set.tables.size()));
    }
    // The typed ids of the batch become raw here: below this door a layer's kind says which table
    // is meant.
    set.tables.push_back({reinterpret_cast<const int32_t*>(sequence.full_pages),
                          reinterpret_cast<const int32_t*>(sequence.sliding_pages),
                          sequence.num_pages});
  }
  CHECK(
      set.sequences.size() == batch.tokens.size() && batch.positions.size() == batch.tokens.size(),
      "{} rows in sequences, {} tokens", set.sequences.size(), batch.tokens.size());
  return set;
}

RowSet RowSet::Subset(const std::vector<int32_t>& rows) const {
  RowSet set;
  set.tables = tables;
  for (const int32_t row : rows) {
    const auto index = static_cast<size_t>(row);
    set.positions.push_back(positions.at(index));
    set.key_ends.push_back(key_ends.at(index));
    set.sequences.push_back(sequences.at(index));
  }
  return set;
}

}  // namespace lapidary
