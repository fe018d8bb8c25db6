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

// Puts the candidates that `reaches` chooses into the list, as far as there is room; returns how
// many there are.
template <typename Reaches>
__device__ __forceinline__ int Collect(ChunkShared& shared, int first, int count,
                                       Reaches&& reaches) {
  if (threadIdx.x == 0) shared.count = 0;
  __syncthreads();
  ForEach(shared.x, count, [&](float x, int i) {
    if (!reaches(x, i)) return;
    const int place = atomicAdd(&shared.count, 1);
    if (place < kMaxChunkBest) shared.list[place] = Candidate(OrderKey(x), first + i);
  });
  __syncthreads();
  return shared.count;
}

// A candidate's key, then its place in the chunk counted from the end.
__device__ __forceinline__ uint64_t Placed(float x, int i) {
  return static_cast<uint64_t>(OrderKey(x)) << kPlaceBits |
         static_cast<uint32_t>(kRowChunk - 1 - i);
}

// The best 64 exactly, bit by bit: of a chunk with so many equal logits, or so sorted, that the
// guess kept too many.
__device__ ChunkBest ExactBest(ChunkShared& shared, int first, int count) {
  uint64_t least = 0;
  for (int bit = 32 + kPlaceBits - 1; bit >= 0; --bit) {
    const uint64_t more = least | uint64_t{1} << bit;
    int reach = 0;
    ForEach(shared.x, count, [&](float x, int i) { reach += Placed(x, i) >= more; });
    if (BlockCount(reach, shared.counts) >= kWanted) least = more;
  }
  const auto key = static_cast<uint32_t>(least >> kPlaceBits);
  const int found =
      Collect(shared, first, count, [&](float x, int i) { return Placed(x, i) >= least; });
  return {found, key + 1, key};
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
  const float least = FloatOf(all ? kMaskedKey + 1 : cut);
  const int found = Collect(shared, first, count, [&](float x, int) { return x >= least; });
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
__device__ ChunkBest TakeFirst(ChunkShared& shared, int first, int count, float thread_max) {
  if (threadIdx.x == 0) shared.count = kRowChunk;
  const float max = BlockMax(thread_max, shared.floats);
  if (max == -INFINITY) return {0, 0, 0};
  if (thread_max == max)
    ForEach(shared.x, count, [&](float x, int i) {
      if (x == max) atomicMin(&shared.count, i);
    });
  __syncthreads();
  if (threadIdx.x == 0) shared.list[0] = Candidate(OrderKey(max), first + shared.count);
  __syncthreads();
  return {1, 0, 0};
}

__device__ void Score(const RowSamplingParams& p, ChunkShared& shared, int first, int count,
                      int64_t item, float mine, ChunkSummary& summary) {
  const float max = BlockMax(mine, shared.floats);
  double sum = 0;
  ForEach(shared.x, count,
          [&](float x, int) { sum += exp(static_cast<double>(x) - static_cast<double>(max)); });
  sum = BlockSum(sum, shared.sums);
  const ChunkBest best = Best(shared, first, count, mine);
  StoreList(shared, best.count, p.raw_best + item * kMaxChunkBest);
  if (threadIdx.x != 0) return;
  summary.raw_max = max;
  summary.raw_sum = sum;
  summary.raw_best = best;
}

// mine: the largest raw logit of the thread's own.
__device__ void Keep(const RowSamplingParams& p, const RowTask& task, ChunkShared& shared,
                     int first, int count, int64_t item, float mine, ChunkSummary& summary) {
  const float temperature = IsGreedy(task) ? 1.0f : task.temperature;
  if (HasFilters(task) || temperature != 1.0f) {
    FilterPiece(p, task, first, count, shared.x);
    ScalePiece(temperature, count, shared.x);
    mine = ThreadMax(shared, count);
  }
  if (IsOpen(task) || IsPlain(task)) {
    const float max = BlockMax(mine, shared.floats);
    float sum = 0;
    if (max > -INFINITY) ForEach(shared.x, count, [&](float x, int) { sum += expf(x - max); });
    const double total = BlockSum(static_cast<double>(sum), shared.sums);
    if (threadIdx.x == 0) summary.max = max, summary.sum = total;
    if (IsPlain(task)) return;
  }
  const ChunkBest best =
      IsGreedy(task) ? TakeFirst(shared, first, count, mine) : Best(shared, first, count, mine);
  StoreList(shared, best.count, p.best + item * kMaxChunkBest);
  if (threadIdx.x == 0) summary.best = best;
}

__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    RowChunksKernel(const __grid_constant__ RowSamplingParams p) {
  extern __shared__ char dynamic_shared[];
  auto& shared = *reinterpret_cast<ChunkShared*>(dynamic_shared);
  GridDependencyLaunch();
  GridDependencyWait();
  const RowTask& task = p.tasks[blockIdx.y];
  const int first = static_cast<int>(blockIdx.x) * kRowChunk,
            count = min(kRowChunk, p.vocab - first);
  const int64_t item = int64_t{blockIdx.y} * kMaxRowChunks + blockIdx.x;
  LoadPiece(p, task, first, count, shared.x, &shared.barrier);
  float zero = 0, mine = -INFINITY;  // x * 0 is NaN for what is not finite
  ForEach(shared.x, count, [&](float x, int) {
    zero = fmaf(x, 0.0f, zero);
    mine = fmaxf(mine, x);
  });
  const bool is_finite = __syncthreads_and(zero == 0);
  ChunkSummary& summary = p.chunks[item];
  if (threadIdx.x == 0) {
    summary = {};
    summary.is_finite = is_finite;
  }
  if (!is_finite) return;
  if (task.scores) Score(p, shared, first, count, item, mine, summary);
  if (task.draws) Keep(p, task, shared, first, count, item, mine, summary);
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
