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
  alignas(128) float x[kMaxSlice];  // masked and dropped: -infinity
  uint64_t list[kMaxSorted];
  double prefix[kMaxSorted];
  double partial[kThreads / 32];
  int counts[kThreads / 32];
  Sums sums[2][kBlocks];  // of each block, by turns
  float largest[kBlocks], smallest[kBlocks];
  Sums found;
  uint64_t found_candidate;
  unsigned long long list_count;
  uint64_t barrier;
};

// A block's part of a row.
struct Slice {
  SearchShared& shared;
  const int rank, first;
  float max = 0, min = 0;  // of the row's candidates
  int turn = 0;

  __device__ float Weight(float x) const { return Exp2((x - max) * kLog2E); }
  // Those that `drops` chooses are candidates no more; every thread its own elements.
  template <typename Drops>
  __device__ void Drop(Drops&& drops) {
    ForEach(shared.x, kMaxSlice, [&](float x, int i) {
      if (drops(x, i)) shared.x[i] = -INFINITY;
    });
  }

  // The sums of all blocks, the same bits in every thread of the cluster.
  __device__ Sums Together(double weight, int count) {
    weight = WarpSum(weight);
    count = __reduce_add_sync(kFullWarp, count);
    if (threadIdx.x % 32 == 0) {
      shared.partial[threadIdx.x / 32] = weight;
      shared.counts[threadIdx.x / 32] = count;
    }
    __syncthreads();
    Sums* slots = shared.sums[turn];
    turn ^= 1;
    if (threadIdx.x < kBlocks) {
      Sums mine;
      for (int w = 0; w < kThreads / 32; ++w) {
        mine.weight += shared.partial[w];
        mine.count += shared.counts[w];
      }
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

  // exp(x - max) to 1e-12: what of the ties at a border is drawn depends on the sum above them.
  __device__ double ExactWeight(float x) const {
    const double y = (static_cast<double>(x) - static_cast<double>(max)) * 1.44269504088896340736;
    if (y < -1000) return 0;
    const double n = rint(y), f = (y - n) * 0.69314718055994530942;
    double e = 1.0 / 3628800.0;
    e = fma(e, f, 1.0 / 362880.0);
    e = fma(e, f, 1.0 / 40320.0);
    e = fma(e, f, 1.0 / 5040.0);
    e = fma(e, f, 1.0 / 720.0);
    e = fma(e, f, 1.0 / 120.0);
    e = fma(e, f, 1.0 / 24.0);
    e = fma(e, f, 1.0 / 6.0);
    e = fma(e, f, 0.5);
    e = fma(e, f, 1.0);
    e = fma(e, f, 1.0);
    return e * __longlong_as_double((static_cast<long long>(n) + 1023) << 52);
  }

  // Of the candidates that reach `from`: a larger logit, or the same and an id that is not higher.
  template <bool kExact>
  __device__ Sums SumFrom(uint64_t from) {
    const float least = LogitOf(from);
    const auto last = ~static_cast<uint32_t>(from);
    double sum = 0;
    int counts = 0;
    for (int i = static_cast<int>(threadIdx.x) * 4; i < kMaxSlice; i += 4 * kThreads * 4) {
      float part = 0;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int place = i + k * kThreads * 4;
        const float4 x = *reinterpret_cast<const float4*>(shared.x + place);
        const float v[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (int j = 0; j < 4; ++j)
          if (v[j] > least || (v[j] == least && static_cast<uint32_t>(first + place + j) <= last)) {
            if (kExact)
              sum += ExactWeight(v[j]);
            else
              part += Weight(v[j]);
            ++counts;
          }
      }
      sum += static_cast<double>(part);
    }
    return Together(sum, counts);
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
  const float least = LogitOf(lo), most = LogitOf(hi);
  ForEach(shared.x, kMaxSlice, [&](float x, int i) {
    if (x < least || x > most) return;
    const uint64_t candidate = Candidate(OrderKey(x), slice.first + i);
    if (candidate >= lo && candidate < hi)
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
        StoreCluster8(ClusterAddress(SharedAddress(&shared.found_candidate), block),
                      shared.list[place]);
        const uint32_t to = ClusterAddress(SharedAddress(&shared.found), block);
        StoreCluster8(to, static_cast<uint64_t>(__double_as_longlong(found.weight)));
        StoreCluster8(to + 8, static_cast<uint64_t>(found.count));
      }
    }
  }
  ClusterBarrier();
  return {shared.found_candidate, shared.found};
}

// all: the sums of every candidate that counts.
__device__ Place Search(Slice& slice, const Goal& goal, const Sums& all) {
  uint64_t lo = static_cast<uint64_t>(OrderKey(slice.min)) << 32,
           hi = (static_cast<uint64_t>(OrderKey(slice.max)) + 1) << 32;
  Sums above, from_lo = all;
  while (from_lo.count - above.count > kMaxSorted) {
    const uint64_t middle = Middle(lo, hi);
    const Sums sums = slice.SumFrom<false>(middle);
    if (goal.Reached(sums))
      lo = middle, from_lo = sums;
    else
      hi = middle, above = sums;
  }
  if (above.count > 0) above = slice.SumFrom<true>(hi);
  return Finish(slice, goal, lo, hi, above);
}

// The row's largest and smallest logit that is not masked.
__device__ void FindRange(Slice& slice) {
  SearchShared& shared = slice.shared;
  float max = -INFINITY, min = INFINITY;
  ForEach(shared.x, kMaxSlice, [&](float x, int) {
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

enum class Filter { kTopK, kTopP, kMinP, kDraw };

// The draw as Sampler defines it: every filter shortens the row to its best.
__device__ int DrawFromRow(Slice& slice, const RowTask& task) {
  Sums all;
  Place place;
#pragma unroll 1
  for (int stage = 0; stage <= static_cast<int>(Filter::kDraw); ++stage) {
    const auto filter = static_cast<Filter>(stage);
    if (stage == 0 || (filter == Filter::kMinP && task.min_p > 0.0f)) {
      if (stage > 0) slice.Drop([&](float x, int) { return slice.Weight(x) < task.min_p; });
      all = slice.SumFrom<true>(Candidate(OrderKey(slice.min), -1));
    }
    Goal goal;
    if (filter == Filter::kTopK) {
      if (task.top_k == 0 || task.top_k >= all.count) continue;
      goal.count = task.top_k;
    } else if (filter == Filter::kTopP) {
      if (task.top_p >= 1.0f) continue;
      goal.weight = all.weight * static_cast<double>(task.top_p);
    } else if (filter == Filter::kMinP) {
      continue;
    } else {
      goal.weight = task.uniform * all.weight;
      goal.beyond = true;
    }
    place = Search(slice, goal, all);
    all = place.sums;
    slice.min = LogitOf(place.candidate);
    slice.Drop([&](float x, int i) {
      return x < slice.min || Candidate(OrderKey(x), slice.first + i) < place.candidate;
    });
  }
  return IdOf(place.candidate);
}

__global__ void __launch_bounds__(kThreads, 1)
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
  const int rank = static_cast<int>(ClusterRank()), first = min(rank * slice_size, p.vocab),
            count = min(slice_size, p.vocab - first);
  LoadPiece(p, task, first, count, shared.x, &shared.barrier);
  for (int i = count + static_cast<int>(threadIdx.x); i < kMaxSlice; i += kThreads)
    shared.x[i] = -INFINITY;
  FilterPiece(p, task, first, count, shared.x);
  ScalePiece(task.temperature, count, shared.x);
  ClusterBarrier();  // every block runs before its shared memory is written
  Slice slice{shared, rank, first};
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
