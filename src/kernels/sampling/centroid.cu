// A cluster of blocks takes one row. Each block scores its share of the centroids and sends its
// best to all of them; every block then knows the best K of all, takes its share of their ids, and
// fills its share of the row before the ids' logits go to their places.
#include "kernels/common/launch.cuh"
#include "kernels/common/math.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/sampling/centroid.h"

namespace lapidary::kernels {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kBlocks = 8;
constexpr int kMaxHidden = 1024, kMaxCentroids = 4096, kMaxTopK = 256, kMaxFound = 8192;
constexpr int kBlockCentroids = kMaxCentroids / kBlocks, kBlockFound = kMaxFound / kBlocks;

struct alignas(8) Scored {
  float score;
  int centroid;
};

struct CentroidShared {
  Scored best[kBlocks * kMaxTopK];  // of all blocks, written by each
  Scored own[kBlockCentroids];
  float y[kMaxHidden];
  int taken[kMaxTopK];
  float found[kBlockFound];
  float smallest_of_warps[kWarps];
  float smallest[kBlocks];  // of all blocks, written by each
};

// The block's share of `count` things.
struct Share {
  int begin, end;
  __device__ Share(int count, int rank)
      : begin(static_cast<int>(int64_t{count} * rank / kBlocks)),
        end(static_cast<int>(int64_t{count} * (rank + 1) / kBlocks)) {}
  __device__ int size() const { return end - begin; }
};

// y . rows[i] for the kRows rows, in every lane: their loads are in flight together. A warp.
template <int kRows>
__device__ void Dots(const float* y, const Bf16* const (&rows)[kRows], int hidden,
                     float (&sums)[kRows]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) sums[r] = 0;
  for (int column = static_cast<int>(threadIdx.x % 32) * 8; column < hidden; column += 256) {
    uint4 packed[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      packed[r] = __ldg(reinterpret_cast<const uint4*>(rows[r] + column));
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float v[8];
      Unpack8(packed[r], v);
#pragma unroll
      for (int i = 0; i < 8; ++i) sums[r] = fmaf(y[column + i], v[i], sums[r]);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) sums[r] = WarpSum(sums[r]);
}

// How many are better than `mine`; the lower centroid is better among equals, so no two have one
// place.
__device__ int Place(const Scored* all, int count, const Scored& mine) {
  int place = 0;
  for (int i = 0; i < count; ++i)
    place += all[i].score > mine.score ||
             (all[i].score == mine.score && all[i].centroid < mine.centroid);
  return place;
}

// The best of the block's centroids, to all blocks. A score that is no number is the worst.
__device__ void SendBest(const CentroidParams& p, CentroidShared& shared, const Share& own,
                         int rank) {
  constexpr int kRows = 4;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int first = own.begin + warp * kRows; first < own.end; first += kWarps * kRows) {
    const Bf16* rows[kRows];
    float scores[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      rows[r] = p.centroids + min(first + r, own.end - 1) * p.centroids_stride;
    Dots(shared.y, rows, p.hidden, scores);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      if (lane == r && first + r < own.end)
        shared.own[first + r - own.begin] = {isnan(scores[r]) ? -INFINITY : scores[r], first + r};
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < own.size(); i += kThreads) {
    const Scored& mine = shared.own[i];
    const int place = Place(shared.own, own.size(), mine);
    if (place >= p.top_k) continue;
    const uint32_t to = SharedAddress(shared.best + rank * p.top_k + place);
    const auto bits = static_cast<uint64_t>(__float_as_uint(mine.score)) |
                      static_cast<uint64_t>(mine.centroid) << 32;
    for (uint32_t block = 0; block < kBlocks; ++block)
      StoreCluster8(ClusterAddress(to, block), bits);
  }
}

// The best K of what all blocks sent.
__device__ void TakeBest(const CentroidParams& p, CentroidShared& shared) {
  const int count = kBlocks * p.top_k;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    const int place = Place(shared.best, count, shared.best[i]);
    if (place < p.top_k) shared.taken[place] = shared.best[i].centroid;
  }
  __syncthreads();
}

// Logits of the block's share of the ids in the clusters taken, the smallest to all blocks.
__device__ void FindLogits(const CentroidParams& p, CentroidShared& shared, const Share& own,
                           int per_cluster, int rank) {
  constexpr int kRows = 4;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float smallest = INFINITY;
  for (int first = own.begin + warp * kRows; first < own.end; first += kWarps * kRows) {
    const Bf16* rows[kRows];
    float logits[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int i = min(first + r, own.end - 1);
      const int64_t id =
          p.token_ordering[int64_t{shared.taken[i / per_cluster]} * per_cluster + i % per_cluster];
      rows[r] = p.embed + id * p.embed_stride;
    }
    Dots(shared.y, rows, p.hidden, logits);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first + r >= own.end) continue;
      smallest = fminf(smallest, logits[r]);
      if (lane == r) shared.found[first + r - own.begin] = logits[r];
    }
  }
  if (lane == 0) shared.smallest_of_warps[warp] = smallest;
  __syncthreads();
  if (threadIdx.x >= kBlocks) return;
  for (int w = 0; w < kWarps; ++w) smallest = fminf(smallest, shared.smallest_of_warps[w]);
  StoreCluster(ClusterAddress(SharedAddress(shared.smallest + rank), threadIdx.x), smallest);
}

__global__ void __launch_bounds__(kThreads)
    CentroidKernel(const __grid_constant__ CentroidParams p) {
  extern __shared__ char dynamic_shared[];
  auto& shared = *reinterpret_cast<CentroidShared*>(dynamic_shared);
  const int thread = static_cast<int>(threadIdx.x), rank = static_cast<int>(ClusterRank());
  const int64_t row = blockIdx.x / kBlocks;
  GridDependencyLaunch();
  // Places that no block has enough centroids for.
  for (int i = thread; i < kBlocks * p.top_k; i += kThreads)
    shared.best[i] = {-INFINITY, p.num_centroids + i};
  GridDependencyWait();
  for (int i = thread; i < p.hidden; i += kThreads)
    shared.y[i] = p.y_bf16 ? LoadFloat(static_cast<const Bf16*>(p.y)[row * p.y_stride + i])
                           : static_cast<const float*>(p.y)[row * p.y_stride + i];
  __syncthreads();
  ClusterBarrier();  // all blocks are here and have made their places empty
  SendBest(p, shared, Share(p.num_centroids, rank), rank);
  ClusterBarrier();
  TakeBest(p, shared);
  const int per_cluster = p.vocab / p.num_centroids;
  const Share found(per_cluster * p.top_k, rank);
  FindLogits(p, shared, found, per_cluster, rank);
  ClusterBarrier();
  float rest = shared.smallest[0];
  for (int block = 1; block < kBlocks; ++block) rest = fminf(rest, shared.smallest[block]);
  rest -= 1.0f;
  float* logits = p.logits + row * p.logits_stride;
  const Share fill(p.vocab / 4, rank);
  for (int i = fill.begin + thread; i < fill.end; i += kThreads)
    *reinterpret_cast<float4*>(logits + int64_t{i} * 4) = make_float4(rest, rest, rest, rest);
  ClusterBarrier();  // an id may lie in another block's share of the row
  for (int i = found.begin + thread; i < found.end; i += kThreads)
    logits[p.token_ordering[int64_t{shared.taken[i / per_cluster]} * per_cluster +
                            i % per_cluster]] = shared.found[i - found.begin];
}

}  // namespace

void LaunchCentroid(const CentroidParams& p, Stream stream) {
  const char* name = "Centroid";
  Require(p.hidden <= kMaxHidden && p.hidden % 8 == 0, name, "columns", p.hidden);
  Require(p.num_centroids <= kMaxCentroids && p.vocab % p.num_centroids == 0, name, "clusters",
          p.num_centroids);
  Require(p.top_k <= p.num_centroids && p.top_k <= kMaxTopK &&
              p.vocab / p.num_centroids * p.top_k <= kMaxFound,
          name, "top clusters", p.top_k);
  Require(p.vocab % 4 == 0 && p.logits_stride % 4 == 0 && p.embed_stride % 8 == 0, name,
          "vocabulary", p.vocab);
  Launch(name, CentroidKernel,
         {static_cast<unsigned>(p.num_rows * kBlocks), kThreads,
          static_cast<unsigned>(sizeof(CentroidShared)), kBlocks},
         stream, p);
}

}  // namespace lapidary::kernels
