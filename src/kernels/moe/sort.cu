// Sorting pairs by expert, and the sum over a row's experts.
#include "kernels/common/launch.cuh"
#include "kernels/common/math.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/moe/moe.h"

namespace lapidary::kernels {
namespace {

constexpr int kSortThreads = 1024, kSortWarps = kSortThreads / 32, kMaxExperts = 128;
constexpr int kSumThreads = 256;

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
    int carry = 0;
    for (int base = 0; base < kMaxExperts; base += 32) {
      int sum = totals[base + lane];
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
    if (lane == 0) p.starts[p.num_experts] = carry;
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

__global__ void __launch_bounds__(kSumThreads)
    ExpertSumKernel(const __grid_constant__ ExpertSumParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const int64_t row = blockIdx.y;
  const int column = static_cast<int>(blockIdx.x * kSumThreads + threadIdx.x) * 4;
  if (column >= p.hidden) return;
  float4 v[kMaxTopK];
  float weights[kMaxTopK];
#pragma unroll
  for (int j = 0; j < kMaxTopK; ++j) {
    const int place = j < p.top_k ? p.places[row * p.top_k + j] : -1;
    weights[j] = place >= 0 ? p.weights[row * p.weights_stride + j] : 0.0f;
    v[j] = place >= 0
               ? *reinterpret_cast<const float4*>(p.pairs + int64_t{place} * p.hidden + column)
               : make_float4(0, 0, 0, 0);
  }
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
  for (int j = 0; j < kMaxTopK; ++j)
    sum = make_float4(sum.x + weights[j] * v[j].x, sum.y + weights[j] * v[j].y,
                      sum.z + weights[j] * v[j].z, sum.w + weights[j] * v[j].w);
  *reinterpret_cast<uint2*>(p.out + row * p.out_stride + column) =
      make_uint2(PackBf16(sum.x, sum.y), PackBf16(sum.z, sum.w));
}

}  // namespace

void LaunchExpertSort(const ExpertSortParams& p, Stream stream) {
  Require(p.num_experts <= kMaxExperts, "ExpertSort", "experts", p.num_experts);
  Launch("ExpertSort", ExpertSortKernel, {1, kSortThreads}, stream, p);
}

void LaunchExpertSum(const ExpertSumParams& p, Stream stream) {
  Require(p.hidden % 4 == 0 && p.out_stride % 4 == 0 && p.top_k <= kMaxTopK, "ExpertSum", "columns",
          p.hidden);
  const unsigned parts = static_cast<unsigned>((p.hidden / 4 + kSumThreads - 1) / kSumThreads);
  Launch("ExpertSum", ExpertSumKernel,
         {dim3(parts, static_cast<unsigned>(p.num_rows)), kSumThreads}, stream, p);
}

}  // namespace lapidary::kernels
