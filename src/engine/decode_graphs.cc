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

DecodeGraphs::DecodeGraphs(Gemma4& model, Drafter* drafter, Ops& ops, SlotStates& slots,
                           int max_sequences, int max_drafts, int max_rows)
    : model_(model), drafter_(drafter), ops_(ops), slots_(slots) {
  std::vector<int> rows = {1};
  for (const int drafts : {(max_drafts + 1) / 2, max_drafts})
    if (drafts + 1 > rows.back()) rows.push_back(drafts + 1);
  for (const int sequence_rows : rows)
    for (const int sequences : kSequences) {
      const int num_rows = std::min(sequences * sequence_rows, max_rows);
      steps_.push_back({sequence_rows, num_rows, nullptr, {}, nullptr, 0});
      if (sequences >= max_sequences || num_rows == max_rows) break;
    }
  if (drafter == nullptr) return;
  for (const int sequences : kSequences) {
    drafts_.push_back({std::min(sequences, max_sequences), nullptr, {}});
    if (sequences >= max_sequences) break;
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
  batch.rows.chunks = batch.offsets = View(chunk);
  batch.rows.full_pages = full_pages;
  batch.rows.sliding_pages = sliding_pages;
  batch.output = batch.rows;
  // The largest first: what ops keep for themselves has its size from then on.
  for (size_t i = steps_.size(); i-- > 0;) {
    const bool is_end = i + 1 == steps_.size() || i == 0 ||
                        steps_[i + 1].sequence_rows != steps_[i].sequence_rows ||
                        steps_[i - 1].sequence_rows != steps_[i].sequence_rows;
    CaptureStep(steps_[i], batch, is_end);
  }
  for (size_t i = drafts_.size(); i-- > 0;)
    CaptureDraft(drafts_[i], i == 0 || i + 1 == drafts_.size());
  return static_cast<int>(steps_.size() + drafts_.size());
}

std::unique_ptr<Graph> DecodeGraphs::CaptureWork(const std::function<Tensor()>& work,
                                                 const std::function<void()>& prepare,
                                                 bool checks) {
  Device& device = ops_.device();
  prepare();
  const Tensor row = work().Rows(0, 1);
  std::vector<char> eager;
  if (checks) eager = Bytes(device, row);
  std::unique_ptr<Graph> graph = device.Capture([&] { work(); });
  if (!checks) return graph;
  device.Fill(row.data, 0, static_cast<int64_t>(eager.size()));
  prepare();
  graph->Launch();
  CHECK(Bytes(device, row) == eager, "a graph of {} rows does not give the bits of its work",
        row.rows());
  return graph;
}

void DecodeGraphs::CaptureStep(Size& size, const Batch& batch, bool checks) {
  const Batch placed = ops_.PlaceBatch(Padded(batch, size));
  full_pages_ = placed.rows.full_pages;
  sliding_pages_ = placed.rows.sliding_pages;
  size.tokens = placed.tokens.data;
  size.graph = CaptureWork(
      [&] {
        size.output = model_.ForwardPlaced(placed);
        return size.output.logits;
      },
      [] {}, checks);
  if (checks) size.ms = ops_.device().Time([&] { size.graph->Launch(); });
}

void DecodeGraphs::CaptureDraft(DraftSize& size, bool checks) {
  constexpr int32_t kSlot = 0;
  slots_.Begin({{}, {}, {&kSlot, 1}});
  const DraftRows draft = slots_.PlaceDrafts(0);
  const auto all = [&](Tensor tensor) {
    tensor.shape[0] = size.num_rows;  // the padding too
    return tensor;
  };
  RowSet rows;
  rows.positions = all(draft.rows.positions);
  rows.key_ends = all(draft.rows.key_ends);
  rows.slots = all(draft.rows.slots);
  rows.chunks = all(draft.rows.chunks);
  rows.full_pages = full_pages_;
  rows.sliding_pages = sliding_pages_;
  size.graph = CaptureWork(
      [&] {
        size.output = drafter_->StepPlaced(all(draft.tokens), all(draft.hidden), rows);
        return size.output.logits;
      },
      [&] { slots_.PlaceDrafts(0); }, checks);
}

Batch DecodeGraphs::Place(const Batch& batch) {
  placed_ = nullptr;
  num_placed_ = batch.num_rows();
  if (!batch.rows.spans.empty() || batch.output_rows.rows() != num_placed_)
    return ops_.PlaceBatch(batch);
  const auto found = std::find_if(steps_.begin(), steps_.end(), [&](const Size& size) {
    return size.sequence_rows >= batch.rows.max_sequence_rows && size.num_rows >= num_placed_;
  });
  if (found == steps_.end()) return ops_.PlaceBatch(batch);
  const Batch placed = ops_.PlaceBatch(Padded(batch, *found));
  CHECK(placed.tokens.data == found->tokens,
        "a step of {} rows lies elsewhere than its graph reads", found->num_rows);
  placed_ = &*found;
  return placed;
}

bool DecodeGraphs::Run(StepOutput& output) {
  if (placed_ == nullptr) return false;
  placed_->graph->Launch();
  output = {placed_->output.hidden.Rows(0, num_placed_),
            placed_->output.logits.Rows(0, num_placed_)};
  return true;
}

bool DecodeGraphs::RunDraft(int64_t num_rows, DraftOutput& output) {
  const auto found = std::find_if(drafts_.begin(), drafts_.end(),
                                  [&](const DraftSize& size) { return size.num_rows >= num_rows; });
  if (found == drafts_.end()) return false;
  found->graph->Launch();
  output = {found->output.logits.Rows(0, num_rows), found->output.hidden.Rows(0, num_rows)};
  return true;
}

Batch DecodeGraphs::Padded(const Batch& batch, const Size& size) {
  Extend(tokens_, batch.tokens, size.num_rows, -1);
  Extend(positions_, batch.rows.positions, size.num_rows, 0);
  Extend(key_ends_, batch.rows.key_ends, size.num_rows, 0);
  Extend(row_slots_, batch.rows.slots, size.num_rows, -1);
  Extend(chunks_, batch.rows.chunks, size.num_rows, -1);
  Extend(offsets_, batch.offsets, size.num_rows, -1);
  // Neighbours with one slot are a sequence, and a sequence has at most max_sequence_rows.
  for (size_t i = static_cast<size_t>(batch.num_rows()); i < row_slots_.size(); i += 2)
    row_slots_[i] = -2;
  rows_.resize(tokens_.size());
  for (size_t i = 0; i < rows_.size(); ++i) rows_[i] = static_cast<int32_t>(i);
  Batch padded = batch;
  padded.tokens = padded.output_tokens = View(tokens_);
  padded.output_rows = View(rows_);
  padded.rows.positions = View(positions_);
  padded.rows.key_ends = View(key_ends_);
  padded.rows.slots = View(row_slots_);
  padded.rows.chunks = View(chunks_);
  padded.rows.max_sequence_rows = size.sequence_rows;
  padded.output = padded.rows;
  padded.offsets = padded.output_offsets = View(offsets_);
  return padded;
}

}  // namespace lapidary
