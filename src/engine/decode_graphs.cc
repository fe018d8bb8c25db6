#include "engine/decode_graphs.h"

#include <algorithm>

namespace lapidary {
namespace {

constexpr int kSequences[] = {1, 2, 4, 8, 16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 224, 256};

Tensor View(std::vector<int32_t>& values) {
  return MakeTensor(values.data(), DType::kI32, static_cast<int64_t>(values.size()));
}

void Extend(std::vector<int32_t>& values, const Tensor& from, int num_rows, int32_t padding) {
  values.assign(from.i32(), from.i32() + from.rows());
  values.resize(static_cast<size_t>(num_rows), padding);
}

std::vector<char> Bytes(Device& device, const Tensor& tensor) {
  std::vector<char> bytes(static_cast<size_t>(tensor.num_elements() * SizeOf(tensor.dtype)));
  device.CopyOut(bytes.data(), tensor.data, static_cast<int64_t>(bytes.size()));
  return bytes;
}

}  // namespace

DecodeGraphs::DecodeGraphs(Gemma4& model, Ops& ops, int max_sequences, int max_drafts, int max_rows)
    : model_(model), ops_(ops) {
  std::vector<int> rows = {1};
  for (const int drafts : {(max_drafts + 1) / 2, max_drafts})
    if (drafts + 1 > rows.back()) rows.push_back(drafts + 1);
  for (const int sequence_rows : rows)
    for (const int sequences : kSequences) {
      const int num_rows = std::min(sequences * sequence_rows, max_rows);
      sizes_.push_back({sequence_rows, num_rows, nullptr, {}, nullptr, 0});
      if (sequences >= max_sequences || num_rows == max_rows) break;
    }
}

int DecodeGraphs::Capture(const Tensor& full_pages, const Tensor& sliding_pages) {
  // One token at the first place of a page of slot 0: nothing else lives while this runs.
  std::vector<int32_t> token = {0}, position = {0}, key_end = {1}, slot = {0}, chunk = {-1};
  Batch batch;
  batch.tokens = batch.output_tokens = View(token);
  batch.rows.positions = View(position);
  batch.rows.key_ends = View(key_end);
  batch.rows.slots = View(slot);
  batch.rows.chunks = View(chunk);
  batch.rows.full_pages = full_pages;
  batch.rows.sliding_pages = sliding_pages;
  batch.output = batch.rows;
  // The largest first: what ops keep for themselves has its size from then on.
  for (size_t i = sizes_.size(); i-- > 0;) {
    const bool is_end = i + 1 == sizes_.size() || i == 0 ||
                        sizes_[i + 1].sequence_rows != sizes_[i].sequence_rows ||
                        sizes_[i - 1].sequence_rows != sizes_[i].sequence_rows;
    CaptureSize(sizes_[i], batch, is_end);
  }
  return static_cast<int>(sizes_.size());
}

void DecodeGraphs::CaptureSize(Size& size, const Batch& batch, bool checks) {
  Device& device = ops_.device();
  const Batch placed = ops_.PlaceBatch(Padded(batch, size));
  size.output = model_.ForwardPlaced(placed);
  std::vector<char> eager;
  const auto first_row = [&] { return size.output.logits.Rows(0, 1); };
  if (checks) eager = Bytes(device, first_row());
  size.tokens = placed.tokens.data;
  size.graph = device.Capture([&] { size.output = model_.ForwardPlaced(placed); });
  if (!checks) return;
  device.Fill(first_row().data, 0, static_cast<int64_t>(eager.size()));
  size.graph->Launch();
  CHECK(Bytes(device, first_row()) == eager,
        "the graph of a step of {} rows, {} a sequence, does not give the step's bits",
        size.num_rows, size.sequence_rows);
  size.ms = device.Time([&] { size.graph->Launch(); });
}

bool DecodeGraphs::Run(const Batch& batch, StepOutput& output) {
  if (!batch.rows.spans.empty() || batch.output_rows.rows() != batch.num_rows()) return false;
  const auto found = std::find_if(sizes_.begin(), sizes_.end(), [&](const Size& size) {
    return size.sequence_rows >= batch.rows.max_sequence_rows && size.num_rows >= batch.num_rows();
  });
  if (found == sizes_.end()) return false;
  const Batch placed = ops_.PlaceBatch(Padded(batch, *found));
  CHECK(placed.tokens.data == found->tokens,
        "a step of {} rows lies elsewhere than its graph reads", found->num_rows);
  found->graph->Launch();
  output = {found->output.hidden.Rows(0, batch.num_rows()),
            found->output.logits.Rows(0, batch.num_rows())};
  return true;
}

Batch DecodeGraphs::Padded(const Batch& batch, const Size& size) {
  Extend(tokens_, batch.tokens, size.num_rows, -1);
  Extend(positions_, batch.rows.positions, size.num_rows, 0);
  Extend(key_ends_, batch.rows.key_ends, size.num_rows, 0);
  Extend(slots_, batch.rows.slots, size.num_rows, -1);
  Extend(chunks_, batch.rows.chunks, size.num_rows, -1);
  // Neighbours with one slot are a sequence, and a sequence has at most max_sequence_rows.
  for (size_t i = static_cast<size_t>(batch.num_rows()); i < slots_.size(); i += 2) slots_[i] = -2;
  rows_.resize(tokens_.size());
  for (size_t i = 0; i < rows_.size(); ++i) rows_[i] = static_cast<int32_t>(i);
  Batch padded = batch;
  padded.tokens = padded.output_tokens = View(tokens_);
  padded.output_rows = View(rows_);
  padded.rows.positions = View(positions_);
  padded.rows.key_ends = View(key_ends_);
  padded.rows.slots = View(slots_);
  padded.rows.chunks = View(chunks_);
  padded.rows.max_sequence_rows = size.sequence_rows;
  padded.output = padded.rows;
  return padded;
}

}  // namespace lapidary
