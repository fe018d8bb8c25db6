// Sorting pairs by expert.
#include "kernels/common/launch.cuh"
#include "kernels/common/math.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/moe/moe.h"

namespace lapidary::kernels {
namespace {

constexpr int kSortThreads = 1024, kSortWarps = kSortThreads / 32, kMaxExperts = 128;

// One block. Each warp takes a stretch of pairs in order: it counts its pairs of each expert, the
// counts become places, and it puts its pairs there in order, so the result does not depend on
// timing.
__global__ void __launch_bounds__(kSortThreads)
    ExpertSortKernel(const __grid_constant__ ExpertSortParams p) {
  __shared__ int counts[kSortWarps][kMaxExperts];
  __shared__ int totals[kMaxExperts];
  GridDependencyLaunch();
  GridDependencyWait();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int pairs = p.num_rows * p.top_k, stretch = (pairs + kSortThreads - 1) / kSortThreads * 32;
  const int begin = warp * stretch, end = min(begin + stretch, pairs);
  for (int e = lane; e < kMaxExperts; e += 32) counts[warp][e] = 0;
  __syncwarp();
  const auto expert_of = [&](int pair) {
    const int e =
        pair < end ? p.experts[int64_t{pair / p.top_k} * p.experts_stride + pair % p.top_k] : -1;
    return e < p.num_experts ? e : -1;
  };
  for (int base = begin; base < end; base += 32) {
    const int e = expert_of(base + lane);
    if (e >= 0) atomicAdd(&counts[warp][e], 1);
  }
  __syncthreads();
  const int e = static_cast<int>(threadIdx.x);
  if (e < kMaxExperts) {
    int sum = 0;
    for (int w = 0; w < kSortWarps; ++w) {
      const int count = counts[w][e];
      counts[w][e] = sum;
      sum += count;
    }
    totals[e] = sum;
  }
  __syncthreads();
  if (warp == 0) {
    int carry = 0, distinct = 0;
    for (int base = 0; base < kMaxExperts; base += 32) {
      int sum = totals[base + lane];
      distinct += __popc(__ballot_sync(kFullWarp, sum > 0));
#pragma unroll
      for (int offset = 1; offset < 32; offset *= 2) {
        const int below = __shfl_up_sync(kFullWarp, sum, offset);
        if (lane >= offset) sum += below;
      }
      const int start = carry + sum - totals[base + lane];
      carry += __shfl_sync(kFullWarp, sum, 31);
      __syncwarp();
      totals[base + lane] = start;
      if (base + lane < p.num_experts) p.starts[base + lane] = start;
    }
    if (lane == 0) {
      p.starts[p.num_experts] = carry;
      const int rows = carry / p.top_k;
      if (p.tally != nullptr && rows <= p.max_tally_rows) {
        p.tally[2 * rows] += 1;
        p.tally[2 * rows + 1] += distinct;
      }
    }
    // Pairs of no expert leave places empty at the end; whoever gathers rows by this list still
    // finds one there.
    for (int i = carry + lane; i < pairs; i += 32) p.sorted_rows[i] = 0;
  }
  __syncthreads();
  for (int base = begin; base < end; base += 32) {
    const int pair = base + lane, mine = expert_of(pair);
    const unsigned peers = __match_any_sync(kFullWarp, mine);
    const int before = __popc(peers & ((1u << lane) - 1));
    int place = -1;
    if (mine >= 0) {
      place = totals[mine] + counts[warp][mine] + before;
      p.sorted_rows[place] = pair / p.top_k;
    }
    if (pair < end) p.places[pair] = place;
    __syncwarp();
    if (mine >= 0 && before == 0) counts[warp][mine] += __popc(peers);
    __syncwarp();
  }
}

}  // namespace

void LaunchExpertSort(const ExpertSortParams& p, Stream stream) {
  Require(p.num_experts <= kMaxExperts, "ExpertSort", "experts", p.num_experts);
  Launch("ExpertSort", ExpertSortKernel, {1, kSortThreads}, stream, p);
}

}  // namespace lapidary::kernels
