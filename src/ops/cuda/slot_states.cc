#include "ops/cuda/slot_states.h"

#include <algorithm>
#include <cstring>

#include "ops/cuda/cuda_backend.h"

namespace lapidary::cuda {
namespace {

static_assert(kMaxDrafts == kernels::kMaxSlotDrafts);

int64_t Bytes(int64_t count, size_t size) { return count * static_cast<int64_t>(size); }

// Copies `from` to `to` and moves `to` behind it.
template <typename T>
void Put(const std::vector<T>& from, char*& to) {
  std::memcpy(to, from.data(), from.size() * sizeof(T));
  to += from.size() * sizeof(T);
}

}  // namespace

CudaSlotStates::CudaSlotStates(CudaDevice& device, int num_slots, int64_t hidden_size)
    : device_(device), num_slots_(num_slots), hidden_size_(hidden_size) {
  const int64_t slots = num_slots;
  states_ = DeviceMemory(device, Bytes(slots, sizeof(kernels::SlotState)));
  hidden_ = DeviceMemory(device, Bytes(slots * hidden_size, sizeof(float)));
  plan_ = DeviceMemory(device, Bytes(slots, sizeof(kernels::SlotBeginning) +
                                                sizeof(kernels::AcceptEntry) + sizeof(int32_t)));
  outcomes_ = DeviceMemory(device, Bytes(slots, sizeof(kernels::AcceptOutcome)));
  draft_ids_ = DeviceMemory(device, Bytes(5 * slots, sizeof(int32_t)));
  draft_hidden_ = DeviceMemory(device, Bytes(slots * hidden_size, sizeof(float)));
  for (Block& block : plans_) block.memory = HostMemory(device, plan_.bytes());
  for (Block& block : results_) block.memory = HostMemory(device, outcomes_.bytes());
  // Steps that warm up find sequences of two tokens.
  std::vector<kernels::SlotState> states(static_cast<size_t>(num_slots));
  for (kernels::SlotState& state : states) state.length = state.limit = 2;
  device.CopyIn(states_.data(), states.data(), states_.bytes());
  device.Fill(hidden_.data(), 0, hidden_.bytes());
}

void CudaSlotStates::Begin(const SlotStep& step) {
  const auto most = static_cast<size_t>(num_slots_);
  CHECK(step.begins.size() <= most && step.rows.size() <= most && step.drafting.size() <= most,
        "{}, {}, {} sequences of {}", step.begins.size(), step.rows.size(), step.drafting.size(),
        num_slots_);
  std::vector<kernels::SlotBeginning> begins;
  for (const SlotBegin& begin : step.begins)
    begins.push_back(
        {{begin.seed, begin.choice, begin.length, begin.newest, begin.limit, {}}, begin.slot});
  std::vector<kernels::AcceptEntry> entries;
  for (const SlotRows& rows : step.rows)
    entries.push_back({rows.slot, rows.first_query, rows.num_queries, rows.first_output,
                       rows.num_drafts, rows.draws});
  const std::vector<int32_t> drafting(step.drafting.begin(), step.drafting.end());
  Block& block = plans_[num_begun_++ % plans_.size()];
  if (block.mark > 0) device_.WaitFor(block.mark);
  char* end = static_cast<char*>(block.memory.data());
  Put(begins, end);
  Put(entries, end);
  Put(drafting, end);
  device_.QueueCopyIn(plan_.data(), block.memory.data(),
                      end - static_cast<char*>(block.memory.data()));
  block.mark = device_.Mark();
  const auto* placed = Of<kernels::SlotBeginning>(plan_);
  entries_ = reinterpret_cast<const kernels::AcceptEntry*>(placed + begins.size());
  drafting_ = reinterpret_cast<const int32_t*>(entries_ + entries.size());
  num_rows_ = static_cast<int>(entries.size());
  num_drafting_ = static_cast<int>(drafting.size());
  kernels::LaunchBeginSlots(Of<kernels::SlotState>(states_), placed,
                            static_cast<int>(begins.size()), device_.stream());
}

void CudaSlotStates::PlaceRows(Tensor tokens, const RowSet& rows, Tensor offsets) {
  kernels::PlaceSlotRowsParams params;
  Tensor positions = rows.positions, key_ends = rows.key_ends;
  params.states = states();
  params.slots = rows.slots.i32();
  params.offsets = offsets.i32();
  params.tokens = tokens.i32();
  params.positions = positions.i32();
  params.key_ends = key_ends.i32();
  params.num_rows = Int(rows.num_rows());
  kernels::LaunchPlaceSlotRows(params, device_.stream());
}

void CudaSlotStates::Accept(Tensor draws, Tensor hidden) {
  CHECK(num_accepted_ - num_read_ < results_.size(), "{} steps are not read",
        num_accepted_ - num_read_);
  kernels::AcceptParams params;
  params.states = Of<kernels::SlotState>(states_);
  params.entries = entries_;
  params.outcomes = Of<kernels::AcceptOutcome>(outcomes_);
  params.draws = static_cast<const kernels::RowResult*>(draws.data);
  if (hidden_size_ > 0 && !hidden.empty()) {
    params.hidden = hidden.f32();
    params.hidden_stride = hidden.row_stride;
  }
  params.slot_hidden = Of<float>(hidden_);
  params.num_entries = num_rows_;
  params.hidden_size = Int(hidden_size_);
  params.simulated = simulated_;
  kernels::LaunchAccept(params, device_.stream());
  Block& block = results_[num_accepted_++ % results_.size()];
  block.num_rows = num_rows_;
  device_.QueueCopyOut(block.memory.data(), outcomes_.data(),
                       Bytes(num_rows_, sizeof(kernels::AcceptOutcome)));
  block.mark = device_.Mark();
}

DraftRows CudaSlotStates::PlaceDrafts(int back) {
  kernels::PlaceDraftsParams params;
  int32_t* const ids = Of<int32_t>(draft_ids_);
  params.states = states();
  params.drafting = drafting_;
  params.slot_hidden = Of<float>(hidden_);
  params.tokens = ids;
  params.positions = ids + num_slots_;
  params.key_ends = ids + 2 * num_slots_;
  params.slots = ids + 3 * num_slots_;
  params.chunks = ids + 4 * num_slots_;
  params.hidden = Of<float>(draft_hidden_);
  params.num_drafting = num_drafting_;
  params.max_rows = num_slots_;
  params.hidden_size = Int(hidden_size_);
  params.back = back;
  kernels::LaunchPlaceDrafts(params, device_.stream());
  const auto view = [&](int32_t* data) { return MakeTensor(data, DType::kI32, num_drafting_); };
  DraftRows draft;
  draft.tokens = view(params.tokens);
  draft.hidden = MakeTensor(draft_hidden_.data(), DType::kF32, num_drafting_, hidden_size_);
  draft.rows.positions = view(params.positions);
  draft.rows.key_ends = view(params.key_ends);
  draft.rows.slots = view(params.slots);
  draft.rows.chunks = view(params.chunks);
  return draft;
}

void CudaSlotStates::TakeDrafts(int pass, Tensor best) {
  CHECK(pass < kMaxDrafts && best.rows() <= num_drafting_, "draft {} of {} sequences", pass,
        best.rows());
  kernels::TakeDraftsParams params;
  params.states = Of<kernels::SlotState>(states_);
  params.drafting = drafting_;
  params.best = static_cast<const kernels::RowResult*>(best.data);
  params.tokens = Of<int32_t>(draft_ids_);
  params.count = Int(best.rows());
  params.pass = pass;
  kernels::LaunchTakeDrafts(params, device_.stream());
}

std::span<const SlotOutcome> CudaSlotStates::Read() {
  CHECK(num_read_ < num_accepted_, "no step to read");
  const Block& block = results_[num_read_++ % results_.size()];
  device_.WaitFor(block.mark);
  const auto* outcomes = static_cast<const kernels::AcceptOutcome*>(block.memory.data());
  read_.clear();
  for (int i = 0; i < block.num_rows; ++i) {
    const kernels::AcceptOutcome& from = outcomes[i];
    SlotOutcome& outcome = read_.emplace_back();
    outcome.num_tokens = from.num_tokens;
    outcome.num_queries = from.num_queries;
    outcome.not_finite = from.not_finite != 0;
    outcome.exhausted = from.exhausted != 0;
    std::copy(std::begin(from.tokens), std::end(from.tokens), outcome.tokens.begin());
  }
  return read_;
}

std::array<int32_t, kMaxDrafts> CudaSlotStates::Drafts(int32_t slot) {
  CHECK(slot >= 0 && slot < num_slots_, "slot {} of {}", slot, num_slots_);
  std::array<int32_t, kMaxDrafts> drafts{};
  device_.CopyOut(drafts.data(), (states() + slot)->drafts, sizeof(drafts));
  return drafts;
}

std::unique_ptr<SlotStates> CudaBackend::MakeSlotStates(int num_slots, int64_t hidden_size) {
  return std::make_unique<CudaSlotStates>(*device_, num_slots, hidden_size);
}

}  // namespace lapidary::cuda
