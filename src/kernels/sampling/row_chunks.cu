// RowChunks: a block reads one chunk of one row into shared memory and keeps its best.
#include "kernels/sampling/row_kernels.h"

#include "kernels/common/launch.cuh"
#include "kernels/sampling/row_sampling.cuh"

namespace lapidary::kernels {
namespace {

constexpr int kThreads = 256, kBlocksPerSm = 3;
constexpr int kWanted = kMaxExactTopK;
constexpr int kPlaceBits = 14;
static_assert(kRowChunk == 1 << kPlaceBits, "a place in a chunk");
// The first cut of the best is a guess from below: its lowest bits do not matter.
constexpr int kGuessBits = 12;

struct ChunkShared {
  alignas(128) float x[kRowChunk];
  uint64_t list[kMaxChunkBest];
  double sums[kThreads / 32];
  float floats[kThreads / 32];
  int counts[kThreads / 32];
  int count;
  uint64_t barrier;
};

__device__ int BlockCount(int value, int* partial) {
  value = __reduce_add_sync(kFullWarp, value);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  value = 0;
  for (int w = 0; w < kThreads / 32; ++w) value += partial[w];
  __syncthreads();
  return value;
}

// Puts the candidates that reach `least` (a key, then a place in the chunk counted from its end)
// into the list, as far as there is room; returns how many there are.
__device__ int Collect(ChunkShared& shared, int first, int count, uint64_t least) {
  if (threadIdx.x == 0) shared.count = 0;
  __syncthreads();
  ForEach(shared.x, count, [&](float x, int i) {
    const uint32_t key = OrderKey(x);
    if ((static_cast<uint64_t>(key) << kPlaceBits | (kRowChunk - 1 - i)) < least) return;
    const int place = atomicAdd(&shared.count, 1);
    if (place < kMaxChunkBest) shared.list[place] = Candidate(key, first + i);
  });
  __syncthreads();
  const int found = shared.count;
  __syncthreads();
  return found;
}

// The best 64 exactly, bit by bit: of a chunk with so many equal logits, or so sorted, that the
// guess kept too many.
__device__ ChunkBest ExactBest(ChunkShared& shared, int first, int count) {
  uint64_t least = 0;
  for (int bit = 32 + kPlaceBits - 1; bit >= 0; --bit) {
    const uint64_t more = least | uint64_t{1} << bit;
    int reach = 0;
    ForEach(shared.x, count, [&](float x, int i) {
      reach += (static_cast<uint64_t>(OrderKey(x)) << kPlaceBits | (kRowChunk - 1 - i)) >= more;
    });
    if (BlockCount(reach, shared.counts) >= kWanted) least = more;
  }
  const auto key = static_cast<uint32_t>(least >> kPlaceBits);
  return {Collect(shared, first, count, least), key + 1, key};
}

// thread_max: of the thread's elements.
__device__ ChunkBest Best(ChunkShared& shared, int first, int count, float thread_max) {
  // The 64th of the threads' best is a cut that at least 64 candidates reach, and not many more.
  const uint32_t mine = OrderKey(thread_max);
  uint32_t cut = 0;
  for (int bit = 31; bit >= kGuessBits; --bit) {
    const uint32_t more = cut | 1u << bit;
    if (__syncthreads_count(mine >= more) >= kWanted) cut = more;
  }
  const bool all = cut <= kMaskedKey;
  if (all) cut = kMaskedKey + 1;
  const int found = Collect(shared, first, count, static_cast<uint64_t>(cut) << kPlaceBits);
  if (found > kMaxChunkBest) return ExactBest(shared, first, count);
  return {found, all ? 0 : cut, all ? 0 : cut};
}

__device__ void StoreList(const ChunkShared& shared, int count, uint64_t* out) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) out[i] = shared.list[i];
  __syncthreads();
}

__device__ float ThreadMax(const ChunkShared& shared, int count) {
  float max = -INFINITY;
  ForEach(shared.x, count, [&](float x, int) { max = fmaxf(max, x); });
  return max;
}

// The one best candidate.
__device__ ChunkBest TakeFirst(ChunkShared& shared, int first, int count) {
  uint64_t best = 0;
  ForEach(shared.x, count, [&](float x, int i) {
    const uint64_t candidate = Candidate(OrderKey(x), first + i);
    best = best < candidate ? candidate : best;
  });
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const uint64_t other = __shfl_xor_sync(kFullWarp, best, offset);
    best = best < other ? other : best;
  }
  if (threadIdx.x % 32 == 0) shared.list[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kThreads / 32; ++w)
      if (shared.list[0] < shared.list[w]) shared.list[0] = shared.list[w];
    shared.count = shared.list[0] >> 32 > kMaskedKey;
  }
  __syncthreads();
  return {shared.count, 0, 0};
}

__device__ void Score(const RowSamplingParams& p, ChunkShared& shared, int first, int count,
                      int64_t item, ChunkSummary& summary) {
  const float mine = ThreadMax(shared, count);
  const float max = BlockMax(mine, shared.floats);
  double sum = 0;
  ForEach(shared.x, count,
          [&](float x, int) { sum += exp(static_cast<double>(x) - static_cast<double>(max)); });
  summary.raw_max = max;
  summary.raw_sum = BlockSum(sum, shared.sums);
  summary.raw_best = Best(shared, first, count, mine);
  StoreList(shared, summary.raw_best.count, p.raw_best + item * kMaxChunkBest);
}

__device__ void Keep(const RowSamplingParams& p, const RowTask& task, ChunkShared& shared,
                     int first, int count, int64_t item, ChunkSummary& summary) {
  FilterPiece(p, task, first, count, shared.x);
  if (IsGreedy(task)) {
    summary.best = TakeFirst(shared, first, count);
  } else {
    ScalePiece(task.temperature, count, shared.x);
    const float mine = ThreadMax(shared, count);
    summary.best = Best(shared, first, count, mine);
    if (IsOpen(task)) {
      summary.max = BlockMax(mine, shared.floats);
      double sum = 0;
      if (summary.max > -INFINITY)
        ForEach(shared.x, count, [&](float x, int) { sum += expf(x - summary.max); });
      summary.sum = BlockSum(sum, shared.sums);
    }
  }
  StoreList(shared, summary.best.count, p.best + item * kMaxChunkBest);
}

__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    RowChunksKernel(const __grid_constant__ RowSamplingParams p) {
  extern __shared__ char dynamic_shared[];
  auto& shared = *reinterpret_cast<ChunkShared*>(dynamic_shared);
  GridDependencyLaunch();
  GridDependencyWait();
  const RowTask task = p.tasks[blockIdx.y];
  const int first = static_cast<int>(blockIdx.x) * kRowChunk,
            count = min(kRowChunk, p.vocab - first);
  const int64_t item = int64_t{blockIdx.y} * kMaxRowChunks + blockIdx.x;
  LoadPiece(p, task, first, count, shared.x, &shared.barrier);
  bool is_finite = true;
  ForEach(shared.x, count,
          [&](float x, int) { is_finite &= (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u; });
  ChunkSummary summary = {};
  summary.is_finite = __syncthreads_and(is_finite);
  if (summary.is_finite && task.scores) Score(p, shared, first, count, item, summary);
  if (summary.is_finite && task.draws) Keep(p, task, shared, first, count, item, summary);
  if (threadIdx.x == 0) p.chunks[item] = summary;
}

}  // namespace

void LaunchRowChunks(const RowSamplingParams& p, Stream stream) {
  const unsigned chunks = static_cast<unsigned>((p.vocab + kRowChunk - 1) / kRowChunk);
  Launch("RowChunks", RowChunksKernel,
         {dim3(chunks, static_cast<unsigned>(p.num_tasks)), kThreads,
          static_cast<unsigned>(sizeof(ChunkShared))},
         stream, p);
}

}  // namespace lapidary::kernels
