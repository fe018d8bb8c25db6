// RowSearch: rows whose draw needs more than the listed best. A cluster of eight blocks holds the
// row; a sum over the best candidates is found by halving the range of its last one, until the
// candidates in the range can be sorted.
#include "kernels/common/launch.cuh"
#include "kernels/sampling/row_kernels.h"
#include "kernels/sampling/row_sampling.cuh"

namespace lapidary::kernels {
namespace {

constexpr int kThreads = 512, kBlocks = 8;
constexpr int kMaxSlice = kRowChunk * kMaxRowChunks / kBlocks;
constexpr int kMaxSorted = 2048;

struct Sums {
  double weight = 0;
  int64_t count = 0;
};

struct SearchShared {
  alignas(128) float x[kMaxSlice];
  uint64_t list[kMaxSorted];
  double prefix[kMaxSorted];
  double partial[kThreads / 32];
  Sums sums[2][kBlocks];  // of each block, by turns
  float largest[kBlocks], smallest[kBlocks];
  Sums found;
  uint64_t found_key;
  unsigned long long list_count;
  uint64_t barrier;
};

// A block's part of a row, and what counts of it.
struct Slice {
  SearchShared& shared;
  int rank, first, count;
  float max = 0, min = 0;  // of the row's candidates
  float min_weight = 0;
  uint64_t least = 0;  // candidates below do not count
  int turn = 0;

  __device__ float Weight(float x) const { return expf(x - max); }
  __device__ bool Counts(uint64_t candidate, float weight) const {
    return candidate >= least && candidate >> 32 > kMaskedKey && weight >= min_weight;
  }

  // The sums of all blocks, the same bits in every thread of the cluster.
  __device__ Sums Together(Sums mine) {
    mine.weight = BlockSum(mine.weight, shared.partial);
    mine.count = static_cast<int64_t>(BlockSum(static_cast<double>(mine.count), shared.partial));
    Sums* slots = shared.sums[turn];
    turn ^= 1;
    if (threadIdx.x < kBlocks) {
      const uint32_t to = ClusterAddress(SharedAddress(slots + rank), threadIdx.x);
      StoreCluster8(to, static_cast<uint64_t>(__double_as_longlong(mine.weight)));
      StoreCluster8(to + 8, static_cast<uint64_t>(mine.count));
    }
    ClusterBarrier();
    Sums all;
    for (int block = 0; block < kBlocks; ++block) {
      all.weight += slots[block].weight;
      all.count += slots[block].count;
    }
    return all;
  }

  // Of the candidates that count and reach `from`.
  __device__ Sums SumFrom(uint64_t from) {
    Sums mine;
    ForEach(shared.x, count, [&](float x, int i) {
      const uint64_t candidate = Candidate(OrderKey(x), first + i);
      const float weight = Weight(x);
      if (candidate < from || !Counts(candidate, weight)) return;
      mine.weight += static_cast<double>(weight);
      ++mine.count;
    });
    return Together(mine);
  }
};

// A candidate and the sums of all from the best down to it.
struct Place {
  uint64_t candidate = 0;
  Sums sums;
};

// What a search goes by: the first candidate at which the sum of weights, or the number, is enough.
struct Goal {
  double weight = -1;  // reached when equal; with `beyond` only when above
  bool beyond = false;
  int64_t count = -1;
  __device__ bool Reached(const Sums& sums) const {
    if (count >= 0) return sums.count >= count;
    return beyond ? sums.weight > weight : sums.weight >= weight;
  }
};

// Between lo and hi, by logit as long as that separates them.
__device__ uint64_t Middle(uint64_t lo, uint64_t hi) {
  const float value = 0.5f * LogitOf(lo) + 0.5f * LogitOf(hi);
  const uint64_t middle = static_cast<uint64_t>(OrderKey(value)) << 32;
  return middle > lo && middle < hi ? middle : lo + (hi - lo) / 2;
}

// Brings the candidates in [lo, hi) to block 0, which sorts them and tells all where the goal is.
// `above`: the sums of those from hi on.
__device__ Place Finish(Slice& slice, const Goal& goal, uint64_t lo, uint64_t hi, Sums above) {
  SearchShared& shared = slice.shared;
  if (threadIdx.x == 0) shared.list_count = 0;
  __syncthreads();
  ForEach(shared.x, slice.count, [&](float x, int i) {
    const uint64_t candidate = Candidate(OrderKey(x), slice.first + i);
    if (candidate >= lo && candidate < hi && slice.Counts(candidate, slice.Weight(x)))
      shared.list[atomicAdd(&shared.list_count, 1ull)] = candidate;
  });
  ClusterBarrier();
  if (slice.rank == 0) {
    int count = static_cast<int>(shared.list_count);
    for (unsigned block = 1; block < kBlocks; ++block) {
      const int theirs =
          static_cast<int>(LoadCluster8(ClusterAddress(SharedAddress(&shared.list_count), block)));
      const uint32_t from = ClusterAddress(SharedAddress(shared.list), block);
      for (int i = static_cast<int>(threadIdx.x); i < theirs; i += kThreads)
        shared.list[count + i] = LoadCluster8(from + static_cast<uint32_t>(i) * 8);
      count += theirs;
    }
    __syncthreads();
    SortCandidates(shared.list, count);
    SumWeights(shared.list, count, slice.max, shared.prefix, shared.partial);
    if (threadIdx.x == 0) {
      int place = 0;
      const auto sums = [&](int i) {
        return Sums{above.weight + shared.prefix[i], above.count + i + 1};
      };
      int end = count - 1;  // if rounding hides the goal, the last
      while (place < end) {
        const int middle = (place + end) / 2;
        if (goal.Reached(sums(middle)))
          end = middle;
        else
          place = middle + 1;
      }
      const Sums found = sums(place);
      for (unsigned block = 0; block < kBlocks; ++block) {
        StoreCluster8(ClusterAddress(SharedAddress(&shared.found_key), block), shared.list[place]);
        const uint32_t to = ClusterAddress(SharedAddress(&shared.found), block);
        StoreCluster8(to, static_cast<uint64_t>(__double_as_longlong(found.weight)));
        StoreCluster8(to + 8, static_cast<uint64_t>(found.count));
      }
    }
  }
  ClusterBarrier();
  return {shared.found_key, shared.found};
}

// all: the sums of every candidate that counts.
__device__ Place Search(Slice& slice, const Goal& goal, const Sums& all) {
  uint64_t lo = static_cast<uint64_t>(OrderKey(slice.min)) << 32,
           hi = (static_cast<uint64_t>(OrderKey(slice.max)) + 1) << 32;
  Sums above, from_lo = all;
  while (from_lo.count - above.count > kMaxSorted) {
    const uint64_t middle = Middle(lo, hi);
    const Sums sums = slice.SumFrom(middle);
    if (goal.Reached(sums))
      lo = middle, from_lo = sums;
    else
      hi = middle, above = sums;
  }
  return Finish(slice, goal, lo, hi, above);
}

// The row's largest and smallest logit that is not masked.
__device__ void FindRange(Slice& slice) {
  SearchShared& shared = slice.shared;
  float max = -INFINITY, min = INFINITY;
  ForEach(shared.x, slice.count, [&](float x, int) {
    max = fmaxf(max, x);
    if (x > -INFINITY) min = fminf(min, x);
  });
  float* partial = reinterpret_cast<float*>(shared.partial);
  max = BlockMax(max, partial);
  min = -BlockMax(-min, partial);
  if (threadIdx.x < kBlocks) {
    StoreCluster(ClusterAddress(SharedAddress(shared.largest + slice.rank), threadIdx.x), max);
    StoreCluster(ClusterAddress(SharedAddress(shared.smallest + slice.rank), threadIdx.x), min);
  }
  ClusterBarrier();
  slice.max = -INFINITY, slice.min = INFINITY;
  for (int block = 0; block < kBlocks; ++block) {
    slice.max = fmaxf(slice.max, shared.largest[block]);
    slice.min = fminf(slice.min, shared.smallest[block]);
  }
}

// The draw as Sampler defines it: every filter shortens the list of the best.
__device__ int DrawFromRow(Slice& slice, const RowTask& task) {
  Sums all = slice.SumFrom(0);
  const auto keep_to = [&](const Place& place) {
    slice.least = place.candidate;
    slice.min = LogitOf(place.candidate);
    all = place.sums;
  };
  if (task.top_k > 0 && task.top_k < all.count) {
    Goal goal;
    goal.count = task.top_k;
    keep_to(Search(slice, goal, all));
  }
  if (task.top_p < 1.0f) {
    Goal goal;
    goal.weight = all.weight * static_cast<double>(task.top_p);
    keep_to(Search(slice, goal, all));
  }
  if (task.min_p > 0.0f) {
    slice.min_weight = task.min_p;
    all = slice.SumFrom(0);
  }
  Goal goal;
  goal.weight = task.uniform * all.weight;
  goal.beyond = true;
  return IdOf(Search(slice, goal, all).candidate);
}

__global__ void __launch_bounds__(kThreads)
    RowSearchKernel(const __grid_constant__ RowSamplingParams p) {
  extern __shared__ char dynamic_shared[];
  auto& shared = *reinterpret_cast<SearchShared*>(dynamic_shared);
  GridDependencyLaunch();
  GridDependencyWait();
  const unsigned index = blockIdx.x / kBlocks;
  RowResult& result = p.results[index];
  // Written below when all blocks of the cluster have read it.
  if (result.token != kUndecided) return;
  const RowTask task = p.tasks[index];
  const int slice_size = (p.vocab + kBlocks * 4 - 1) / (kBlocks * 4) * 4;
  const int rank = static_cast<int>(ClusterRank()), first = min(rank * slice_size, p.vocab);
  Slice slice{shared, rank, first, min(slice_size, p.vocab - first)};
  LoadPiece(p, task, slice.first, slice.count, shared.x, &shared.barrier);
  FilterPiece(p, task, slice.first, slice.count, shared.x);
  ScalePiece(task.temperature, slice.count, shared.x);
  ClusterBarrier();  // every block runs before its shared memory is written
  FindRange(slice);
  const int token = DrawFromRow(slice, task);
  ClusterBarrier();
  if (rank == 0 && threadIdx.x == 0) result.token = token;
}

}  // namespace

void LaunchRowSearch(const RowSamplingParams& p, Stream stream) {
  Launch("RowSearch", RowSearchKernel,
         {static_cast<unsigned>(p.num_tasks) * kBlocks, kThreads,
          static_cast<unsigned>(sizeof(SearchShared)), kBlocks},
         stream, p);
}

}  // namespace lapidary::kernels
