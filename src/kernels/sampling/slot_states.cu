#include "kernels/sampling/slot_states.h"

#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"

namespace lapidary::kernels {
namespace {

constexpr int kThreads = 256;

unsigned Blocks(int count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

__device__ __forceinline__ int Item() {
  return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

// As UniformAt of ops/sampling.h.
__device__ uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
__device__ double UniformAt(uint64_t seed, uint32_t choice, uint64_t position) {
  return static_cast<double>(Mix(Mix(Mix(seed) ^ choice) ^ position) >> 11) * 0x1p-53;
}

struct BeginParams {
  SlotState* states;
  const SlotBeginning* begins;
  int count;
};
__global__ void __launch_bounds__(kThreads) BeginKernel(const __grid_constant__ BeginParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  if (Item() < p.count) p.states[p.begins[Item()].slot] = p.begins[Item()].state;
}

__global__ void __launch_bounds__(kThreads)
    PlaceRowsKernel(const __grid_constant__ PlaceSlotRowsParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const int row = Item();
  if (row >= p.num_rows || p.offsets[row] < 0) return;
  const int offset = p.offsets[row];
  const SlotState& state = p.states[p.slots[row]];
  p.tokens[row] = offset == 0 ? state.newest : state.drafts[offset - 1];
  p.positions[row] = state.length - 1 + offset;
  p.key_ends[row] = state.length + offset;
}

struct UniformsParams {
  RowTask* tasks;
  const SlotState* states;
  int count;
};
__global__ void __launch_bounds__(kThreads)
    UniformsKernel(const __grid_constant__ UniformsParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  if (Item() >= p.count) return;
  RowTask& task = p.tasks[Item()];
  if (task.slot < 0) return;
  const SlotState& state = p.states[task.slot];
  task.uniform =
      UniformAt(state.seed, state.choice,
                static_cast<uint64_t>(state.length) + static_cast<uint64_t>(task.offset));
}

// One thread; the definition's loop.
__device__ void AcceptOne(const AcceptParams& p, const AcceptEntry& entry, AcceptOutcome& outcome) {
  SlotState& state = p.states[entry.slot];
  outcome = {};
  const int first_draw = entry.draws ? entry.num_queries - 1 - entry.num_drafts : entry.num_queries;
  const bool simulates = p.simulated > 0 && entry.num_drafts > 0;
  const int accepts =
      simulates
          ? min(entry.num_drafts, static_cast<int>(p.simulated - 1 +
                                                   UniformAt(state.seed, state.choice,
                                                             static_cast<uint64_t>(state.length))))
          : 0;
  int length = state.length, newest = state.newest;
  for (int i = 0; i < entry.num_queries; ++i) {
    const int place = i - first_draw;
    if (place >= 0 && length >= state.limit) break;
    if (place > 0 && (simulates ? place > accepts : state.drafts[place - 1] != newest)) break;
    const RowResult draw = p.draws[entry.first_query + i];
    outcome.not_finite = draw.is_finite == 0;
    outcome.exhausted = !outcome.not_finite && place >= 0 && draw.token < 0;
    if (outcome.not_finite || outcome.exhausted) break;
    ++outcome.num_queries;
    if (place < 0) continue;
    newest = simulates && place < accepts ? state.drafts[place] : draw.token;
    ++length;
    outcome.tokens[outcome.num_tokens++] = newest;
  }
  if (outcome.num_tokens == 0 && entry.draws && (outcome.not_finite || outcome.exhausted)) {
    newest = 0;
    ++length;
  }
  state.length = length;
  state.newest = newest;
}

// A block an entry.
__global__ void __launch_bounds__(kThreads) AcceptKernel(const __grid_constant__ AcceptParams p) {
  __shared__ int row;
  GridDependencyLaunch();
  GridDependencyWait();
  const AcceptEntry entry = p.entries[blockIdx.x];
  if (threadIdx.x == 0) {
    AcceptOutcome outcome;
    AcceptOne(p, entry, outcome);
    p.outcomes[blockIdx.x] = outcome;
    row = outcome.num_tokens > 0 ? entry.first_output + outcome.num_queries - 1 : -1;
  }
  __syncthreads();
  if (p.hidden == nullptr || row < 0) return;
  for (int i = static_cast<int>(threadIdx.x); i < p.hidden_size; i += kThreads)
    p.slot_hidden[int64_t{entry.slot} * p.hidden_size + i] = p.hidden[row * p.hidden_stride + i];
}

// A block a row.
__global__ void __launch_bounds__(kThreads)
    PlaceDraftsKernel(const __grid_constant__ PlaceDraftsParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const int row = static_cast<int>(blockIdx.x);
  const bool is_padding = row >= p.num_drafting;
  // Neighbours with one slot would be a sequence.
  const int slot = is_padding ? -1 - row % 2 : p.drafting[row];
  if (threadIdx.x == 0) {
    const int length = is_padding ? 1 : p.states[slot].length;
    p.tokens[row] = is_padding ? -1 : p.states[slot].newest;
    p.positions[row] = is_padding ? 0 : length - 1 - p.back;
    p.key_ends[row] = length - 1;
    p.slots[row] = slot;
    p.chunks[row] = -1;
  }
  for (int i = static_cast<int>(threadIdx.x); i < p.hidden_size; i += kThreads)
    p.hidden[int64_t{row} * p.hidden_size + i] =
        is_padding ? __int_as_float(0x7fffffff) : p.slot_hidden[int64_t{slot} * p.hidden_size + i];
}

__global__ void __launch_bounds__(kThreads)
    TakeDraftsKernel(const __grid_constant__ TakeDraftsParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  if (Item() >= p.count) return;
  const int token = max(p.best[Item()].token, 0);
  p.tokens[Item()] = token;
  p.states[p.drafting[Item()]].drafts[p.pass] = token;
}

}  // namespace

void LaunchBeginSlots(SlotState* states, const SlotBeginning* begins, int count, Stream stream) {
  Launch("BeginSlots", BeginKernel, {Blocks(count), kThreads}, stream, {states, begins, count});
}
void LaunchPlaceSlotRows(const PlaceSlotRowsParams& p, Stream stream) {
  Launch("PlaceSlotRows", PlaceRowsKernel, {Blocks(p.num_rows), kThreads}, stream, p);
}
void LaunchPlaceUniforms(RowTask* tasks, int count, const SlotState* states, Stream stream) {
  Launch("PlaceUniforms", UniformsKernel, {Blocks(count), kThreads}, stream,
         {tasks, states, count});
}
void LaunchAccept(const AcceptParams& p, Stream stream) {
  Launch("Accept", AcceptKernel, {static_cast<unsigned>(p.num_entries), kThreads}, stream, p);
}
void LaunchPlaceDrafts(const PlaceDraftsParams& p, Stream stream) {
  Launch("PlaceDrafts", PlaceDraftsKernel, {static_cast<unsigned>(p.max_rows), kThreads}, stream,
         p);
}
void LaunchTakeDrafts(const TakeDraftsParams& p, Stream stream) {
  Launch("TakeDrafts", TakeDraftsKernel, {Blocks(p.count), kThreads}, stream, p);
}

}  // namespace lapidary::kernels
