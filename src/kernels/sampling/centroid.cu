// A block takes one row: scores of all clusters, the best K of them one after the other, then the
// dot products of their ids.
#include "kernels/common/launch.cuh"
#include "kernels/common/math.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/sampling/centroid.h"

namespace lapidary::kernels {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr int kMaxHidden = 1024, kMaxCentroids = 4096, kMaxFound = 8192;

struct CentroidShared {
  float y[kMaxHidden];
  float scores[kMaxCentroids];
  float found[kMaxFound];
  float best[kWarps];
  int best_index[kWarps];
  int chosen;
};

// y . row, in every lane. A warp.
__device__ float Dot(const float* y, const Bf16* row, int hidden) {
  float sum = 0;
  for (int column = static_cast<int>(threadIdx.x % 32) * 8; column < hidden; column += 256) {
    float v[8];
    Unpack8(__ldg(reinterpret_cast<const uint4*>(row + column)), v);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = fmaf(y[column + i], v[i], sum);
  }
  return WarpSum(sum);
}

__device__ bool Better(float a, int a_index, float b, int b_index) {
  return a > b || (a == b && a_index < b_index);
}

// The best of shared.scores, lowest index first among equals; it leaves the race.
__device__ int TakeBest(CentroidShared& shared, int count) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float best = -INFINITY;
  int index = 0x7fffffff;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads)
    if (Better(shared.scores[i], i, best, index)) best = shared.scores[i], index = i;
  for (int round = 0; round < 2; ++round) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      const float other = __shfl_xor_sync(kFullWarp, best, offset);
      const int other_index = __shfl_xor_sync(kFullWarp, index, offset);
      if (Better(other, other_index, best, index)) best = other, index = other_index;
    }
    if (round == 1) break;
    if (lane == 0) shared.best[warp] = best, shared.best_index[warp] = index;
    __syncthreads();
    best = shared.best[lane], index = shared.best_index[lane];
  }
  if (threadIdx.x == 0) {
    shared.chosen = index < count ? index : 0;
    shared.scores[shared.chosen] = -INFINITY;
  }
  __syncthreads();
  return shared.chosen;
}

__global__ void __launch_bounds__(kThreads)
    CentroidKernel(const __grid_constant__ CentroidParams p) {
  extern __shared__ char dynamic_shared[];
  auto& shared = *reinterpret_cast<CentroidShared*>(dynamic_shared);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const int64_t row = blockIdx.x;
  GridDependencyLaunch();
  GridDependencyWait();
  for (int i = thread; i < p.hidden; i += kThreads)
    shared.y[i] = p.y_bf16 ? LoadFloat(static_cast<const Bf16*>(p.y)[row * p.y_stride + i])
                           : static_cast<const float*>(p.y)[row * p.y_stride + i];
  __syncthreads();
  for (int c = warp; c < p.num_centroids; c += kWarps) {
    const float score = Dot(shared.y, p.centroids + c * p.centroids_stride, p.hidden);
    if (thread % 32 == 0) shared.scores[c] = score;
  }
  __syncthreads();
  const int per_cluster = p.vocab / p.num_centroids, num_found = per_cluster * p.top_k;
  __shared__ int taken[kMaxFound / 32];
  for (int k = 0; k < p.top_k; ++k) {
    const int cluster = TakeBest(shared, p.num_centroids);
    if (thread == 0) taken[k] = cluster;
  }
  __syncthreads();
  float smallest = INFINITY;
  for (int i = warp; i < num_found; i += kWarps) {
    const int64_t id =
        p.token_ordering[int64_t{taken[i / per_cluster]} * per_cluster + i % per_cluster];
    const float logit = Dot(shared.y, p.embed + id * p.embed_stride, p.hidden);
    smallest = fminf(smallest, logit);
    if (thread % 32 == 0) shared.found[i] = logit;
  }
  if (thread % 32 == 0) shared.best[warp] = smallest;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) smallest = fminf(smallest, shared.best[w]);
  float* logits = p.logits + row * p.logits_stride;
  const float rest = smallest - 1.0f;
  for (int i = thread * 4; i < p.vocab; i += kThreads * 4)
    *reinterpret_cast<float4*>(logits + i) = make_float4(rest, rest, rest, rest);
  __syncthreads();
  for (int i = thread; i < num_found; i += kThreads)
    logits[p.token_ordering[int64_t{taken[i / per_cluster]} * per_cluster + i % per_cluster]] =
        shared.found[i];
}

}  // namespace

void LaunchCentroid(const CentroidParams& p, Stream stream) {
  const char* name = "Centroid";
  Require(p.hidden <= kMaxHidden && p.hidden % 8 == 0, name, "columns", p.hidden);
  Require(p.num_centroids <= kMaxCentroids && p.vocab % p.num_centroids == 0, name, "clusters",
          p.num_centroids);
  Require(p.top_k <= p.num_centroids && p.top_k <= kMaxFound / 32 &&
              p.vocab / p.num_centroids * p.top_k <= kMaxFound,
          name, "top clusters", p.top_k);
  Require(p.vocab % 4 == 0 && p.logits_stride % 4 == 0 && p.embed_stride % 8 == 0, name,
          "vocabulary", p.vocab);
  Launch(
      name, CentroidKernel,
      {static_cast<unsigned>(p.num_rows), kThreads, static_cast<unsigned>(sizeof(CentroidShared))},
      stream, p);
}

}  // namespace lapidary::kernels
