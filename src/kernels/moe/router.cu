// A cluster of eight blocks takes eight rows: each block multiplies all of them by its eighth of
// the experts, the logits meet in the blocks' shared memory, and block r finishes row r.
#include "kernels/common/launch.cuh"
#include "kernels/common/math.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/moe/moe.h"

namespace lapidary::kernels {
namespace {

constexpr int kRows = 8, kBlocks = 8, kThreads = 256;
constexpr int kMaxExperts = 128, kBlockExperts = kMaxExperts / kBlocks;
// A warp multiplies four rows by four experts.
constexpr int kWarpRows = 4, kWarpExperts = 4;
static_assert(kThreads / 32 == (kRows / kWarpRows) * (kBlockExperts / kWarpExperts),
              "a tile a warp");

constexpr int kMaxSteps = 12;  // of 256 columns
constexpr int kMaxHidden = kMaxSteps * 256;

// u = norm(x) * scale * D^-1/2 of one row, f32, to shared memory. A warp; all loads are under way
// before the first is used.
__device__ void NormRow(const RouterParams& p, int row, float* u) {
  const int lane = threadIdx.x % 32;
  const Bf16* x = p.x + int64_t{row} * p.x_stride;
  uint4 packed[kMaxSteps], scales[kMaxSteps];
#pragma unroll
  for (int step = 0; step < kMaxSteps; ++step) {
    const int column = step * 256 + lane * 8;
    packed[step] = scales[step] = make_uint4(0, 0, 0, 0);
    if (column >= p.hidden) continue;
    if (row < p.num_rows) packed[step] = *reinterpret_cast<const uint4*>(x + column);
    scales[step] = __ldg(reinterpret_cast<const uint4*>(p.scale + column));
  }
  float sum = 0;
#pragma unroll
  for (int step = 0; step < kMaxSteps; ++step) {
    float v[8];
    Unpack8(packed[step], v);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += v[i] * v[i];
  }
  const float factor = 1.0f / sqrtf(WarpSum(sum) / static_cast<float>(p.hidden) + p.eps);
  const float root = 1.0f / sqrtf(static_cast<float>(p.hidden));
#pragma unroll
  for (int step = 0; step < kMaxSteps; ++step) {
    const int column = step * 256 + lane * 8;
    if (column >= p.hidden) continue;
    float v[8], w[8];
    Unpack8(packed[step], v);
    Unpack8(scales[step], w);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = v[i] * factor * w[i] * root;
    *reinterpret_cast<float4*>(u + column) = make_float4(v[0], v[1], v[2], v[3]);
    *reinterpret_cast<float4*>(u + column + 4) = make_float4(v[4], v[5], v[6], v[7]);
  }
}

// The logits of a warp's rows and experts, to the block that finishes each row.
__device__ void Logits(const RouterParams& p, const float* u, float* logits, int rank) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first_row = warp % 2 * kWarpRows,
            first_expert = rank * kBlockExperts + warp / 2 * kWarpExperts;
  float sums[kWarpRows][kWarpExperts] = {};
#pragma unroll 4
  for (int column = lane * 8; column < p.hidden; column += 256) {
    float w[kWarpExperts][8];
#pragma unroll
    for (int e = 0; e < kWarpExperts; ++e) {
      uint4 packed = make_uint4(0, 0, 0, 0);
      if (first_expert + e < p.num_experts)
        packed = __ldg(
            reinterpret_cast<const uint4*>(p.proj + int64_t{first_expert + e} * p.hidden + column));
      Unpack8(packed, w[e]);
    }
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      const float4* from = reinterpret_cast<const float4*>(u + (first_row + r) * p.hidden + column);
      const float4 low = from[0], high = from[1];
      const float v[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int e = 0; e < kWarpExperts; ++e)
#pragma unroll
        for (int i = 0; i < 8; ++i) sums[r][e] = fmaf(v[i], w[e][i], sums[r][e]);
    }
  }
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r)
#pragma unroll
    for (int e = 0; e < kWarpExperts; ++e) {
      const float sum = WarpSum(sums[r][e]);
      if (lane == 0)
        StoreCluster(ClusterAddress(SharedAddress(logits + first_expert + e),
                                    static_cast<uint32_t>(first_row + r)),
                     sum);
    }
}

// Asks L2 for the weights of this warp's experts; nobody writes them, so no kernel need be waited
// for.
__device__ void PrefetchWeights(const RouterParams& p, int rank) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int expert = rank * kBlockExperts + warp * 2;  // two of the block's sixteen
  const int lines = p.hidden * 2 / 128;
  for (int i = lane; i < 2 * lines; i += 32) {
    const int e = expert + i / lines;
    if (e >= p.num_experts) break;
    PrefetchL2(reinterpret_cast<const char*>(p.proj + int64_t{e} * p.hidden) + i % lines * 128);
  }
}

// Softmax, the best K, renormalised. One warp.
__device__ void ChooseExperts(const RouterParams& p, const float* logits, int row) {
  constexpr int kPerLane = kMaxExperts / 32;
  const int lane = threadIdx.x;
  float v[kPerLane];
  float largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int e = i * 32 + lane;
    v[i] = e < p.num_experts ? logits[e] : -INFINITY;
    largest = fmaxf(largest, v[i]);
  }
  largest = WarpMax(largest);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    v[i] = i * 32 + lane < p.num_experts ? expf(v[i] - largest) : -1.0f;
    sum += fmaxf(v[i], 0.0f) + (v[i] - v[i]);  // the second term carries a NaN on
  }
  sum = WarpSum(sum);
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) v[i] = v[i] < 0 ? v[i] : v[i] / sum;
  float weight = 0, chosen = 0;
  int expert = -1;  // of choice `lane`
  for (int j = 0; j < p.top_k; ++j) {
    // The values are not negative, so their bits have their order; a NaN among them is found below.
    float mine = v[0];
    int my_expert = lane;
#pragma unroll
    for (int i = 1; i < kPerLane; ++i)
      if (v[i] > mine) mine = v[i], my_expert = i * 32 + lane;
    const unsigned bits = mine >= 0 ? __float_as_uint(mine) : 0;
    const unsigned best_bits = __reduce_max_sync(kFullWarp, bits);
    const float best = __uint_as_float(best_bits);
    const int best_expert = static_cast<int>(__reduce_min_sync(
        kFullWarp,
        bits == best_bits && mine >= 0 ? static_cast<unsigned>(my_expert) : kMaxExperts));
    if (lane == j) weight = best, expert = best_expert;
    chosen += best;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      if (i * 32 + lane == best_expert) v[i] = -1.0f;
  }
  if (lane >= p.top_k) return;
  const bool finite = sum > 0 && chosen > 0;  // false for NaN
  p.experts[int64_t{row} * p.experts_stride + lane] = finite ? expert : -1;
  p.weights[int64_t{row} * p.weights_stride + lane] =
      finite ? weight / chosen * LoadFloat(p.expert_scale[expert]) : 0.0f;
}

__global__ void __launch_bounds__(kThreads) RouterKernel(const __grid_constant__ RouterParams p) {
  extern __shared__ float rows[];  // [kRows][D]
  __shared__ float logits[kMaxExperts];
  const int rank = static_cast<int>(ClusterRank()),
            first_row = static_cast<int>(blockIdx.x) / kBlocks * kRows;
  PrefetchWeights(p, rank);
  GridDependencyLaunch();
  GridDependencyWait();
  const int warp = threadIdx.x / 32;
  NormRow(p, first_row + warp, rows + warp * p.hidden);
  // Also the promise that every block of the cluster runs before its shared memory is written.
  ClusterBarrier();
  Logits(p, rows, logits, rank);
  ClusterBarrier();
  if (warp == 0 && first_row + rank < p.num_rows) ChooseExperts(p, logits, first_row + rank);
}

}  // namespace

void LaunchRouter(const RouterParams& p, Stream stream) {
  const char* name = "Router";
  Require(p.num_experts <= kMaxExperts && p.top_k <= kMaxTopK && p.top_k <= p.num_experts, name,
          "experts", p.num_experts);
  Require(p.hidden <= kMaxHidden && p.hidden % 8 == 0 && p.x_stride % 8 == 0 && Aligned16(p.x),
          name, "columns", p.hidden);
  if (p.num_rows == 0) return;
  const unsigned clusters = static_cast<unsigned>((p.num_rows + kRows - 1) / kRows);
  Launch(name, RouterKernel,
         {clusters * kBlocks, kThreads, static_cast<unsigned>(kRows * p.hidden * 4), kBlocks},
         stream, p);
}

}  // namespace lapidary::kernels
