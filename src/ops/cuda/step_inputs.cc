#include "ops/cuda/step_inputs.h"

#include <algorithm>
#include <cstring>

#include "kernels/elementwise/elementwise.h"

namespace lapidary::cuda {
namespace {

constexpr int64_t kWord = 4, kAlignedWords = 64, kMinWords = 1 << 16;

int64_t Aligned(int64_t words) {
  return (words + kAlignedWords - 1) / kAlignedWords * kAlignedWords;
}

int64_t Words(const Tensor& tensor) { return tensor.rank == 0 ? 0 : Aligned(tensor.rows()); }

int64_t RowWords(const RowSet& rows) {
  return Words(rows.positions) + Words(rows.key_ends) + Words(rows.slots) + Words(rows.chunks);
}

}  // namespace

Batch StepInputs::Place(const Batch& batch) {
  HaveTables(batch.rows);
  FindChanges(batch.rows);
  const auto num_changes = static_cast<int64_t>(changed_.size());
  Reserve(Words(batch.tokens) + RowWords(batch.rows) + Words(batch.output_rows) +
          Words(batch.output_tokens) + RowWords(batch.output) + Words(batch.offsets) +
          Words(batch.output_offsets) + 2 * Aligned(num_changes));
  block_ = (block_ + 1) % blocks_.size();
  Block& block = blocks_[block_];
  if (block.mark > 0) device_.WaitFor(block.mark);
  num_words_ = 0;
  Batch placed = batch;
  placed.tokens = Put(batch.tokens);
  PlaceRows(placed.rows);
  placed.output_rows = Put(batch.output_rows);
  placed.output_tokens = Put(batch.output_tokens);
  PlaceRows(placed.output);
  placed.offsets = Put(batch.offsets);
  placed.output_offsets = Put(batch.output_offsets);
  SendChanges();
  block.mark = device_.Mark();
  return placed;
}

void StepInputs::HaveTables(const RowSet& rows) {
  const Tensor& table = rows.full_pages;
  CHECK(table.rows() == rows.sliding_pages.rows() && table.cols() == rows.sliding_pages.cols(),
        "page tables of {} and {} cells", table.cols(), rows.sliding_pages.cols());
  if (table.rows() == num_slots_ && table.cols() == num_cells_) return;
  num_slots_ = table.rows();
  num_cells_ = table.cols();
  const int64_t count = 2 * num_slots_ * num_cells_;
  if (tables_.data() != nullptr) outgrown_.push_back(std::move(tables_));
  tables_ = DeviceMemory(device_, count * kWord);
  device_.Fill(tables_.data(), 0xff, count * kWord);
  known_.assign(static_cast<size_t>(count), -1);
  changed_.reserve(known_.size());
  values_.reserve(known_.size());
  Reserve(2 * Aligned(count) + kMinWords);
}

void StepInputs::FindChanges(const RowSet& rows) {
  changed_.clear();
  values_.clear();
  const int32_t *slots = rows.slots.i32(), *ends = rows.key_ends.i32(),
                *positions = rows.positions.i32();
  for (int64_t t = 0; t < rows.num_rows();) {
    const int32_t slot = slots[t];
    int32_t end = 0;
    for (; t < rows.num_rows() && slots[t] == slot; ++t)
      end = std::max({end, ends[t], positions[t] + 1});
    if (slot < 0) continue;
    const int64_t cells = (int64_t{end} + kPageTokens - 1) / kPageTokens;
    CHECK(slot < num_slots_ && cells <= num_cells_, "{} cells in slot {} of {}", cells, slot,
          num_slots_);
    CompareCells(0, rows.full_pages, slot, cells);
    CompareCells(1, rows.sliding_pages, slot, cells);
  }
}

void StepInputs::CompareCells(int table, const Tensor& host, int64_t slot, int64_t num_cells) {
  const int32_t* const cells = host.i32() + slot * host.row_stride;
  const int64_t first = (table * num_slots_ + slot) * num_cells_;
  int32_t* const known = known_.data() + first;
  if (std::memcmp(cells, known, static_cast<size_t>(num_cells * kWord)) == 0) return;
  for (int64_t i = 0; i < num_cells; ++i) {
    if (cells[i] == known[i]) continue;
    known[i] = cells[i];
    changed_.push_back(static_cast<int32_t>(first + i));
    values_.push_back(cells[i]);
  }
}

void StepInputs::Reserve(int64_t num_words) {
  if (num_words * kWord <= place_.bytes()) return;
  const int64_t bytes = std::max({num_words, kMinWords, 2 * place_.bytes() / kWord}) * kWord;
  device_.Synchronize();
  if (place_.data() != nullptr) outgrown_.push_back(std::move(place_));
  place_ = DeviceMemory(device_, bytes);
  for (Block& block : blocks_) block = {HostMemory(device_, bytes), 0};
}

Tensor StepInputs::Put(const Tensor& host) {
  if (host.rank == 0) return host;
  const auto place = static_cast<size_t>(num_words_ * kWord);
  std::memcpy(static_cast<char*>(blocks_[block_].memory.data()) + place, host.i32(),
              static_cast<size_t>(host.rows() * kWord));
  num_words_ += Words(host);
  Tensor placed = host;
  placed.data = static_cast<char*>(place_.data()) + place;
  return placed;
}

void StepInputs::PlaceRows(RowSet& rows) {
  rows.positions = Put(rows.positions);
  rows.key_ends = Put(rows.key_ends);
  rows.slots = Put(rows.slots);
  rows.chunks = Put(rows.chunks);
  rows.full_pages = MakeTensor(tables_.data(), DType::kI32, num_slots_, num_cells_);
  rows.sliding_pages = rows.full_pages;
  rows.sliding_pages.data = static_cast<char*>(tables_.data()) + num_slots_ * num_cells_ * kWord;
}

void StepInputs::SendChanges() {
  const auto count = static_cast<int64_t>(changed_.size());
  const Tensor indices = Put(MakeTensor(changed_.data(), DType::kI32, count)),
               pages = Put(MakeTensor(values_.data(), DType::kI32, count));
  device_.QueueCopyIn(place_.data(), blocks_[block_].memory.data(), num_words_ * kWord);
  if (count == 0) return;
  kernels::ScatterIdsParams params;
  params.out = static_cast<int32_t*>(tables_.data());
  params.indices = indices.i32();
  params.ids = pages.i32();
  params.count = static_cast<int>(count);
  kernels::LaunchScatterIds(params, device_.stream());
}

}  // namespace lapidary::cuda
