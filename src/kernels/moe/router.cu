// A cluster of eight blocks takes eight rows at a time. Block r multiplies all of them by an eighth
// of the experts on the tensor cores, its warps by an eighth of the columns each, and finishes row
// r. The weights are in registers before the kernel ahead is over. x * scale of two bf16 is the sum
// of two bf16 exactly, so that every product is exact; the norm's factor comes last, as one number
// a row.
#include <algorithm>

#include "kernels/common/launch.cuh"
#include "kernels/common/norm.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/moe/moe.h"

namespace lapidary::kernels {
namespace {

constexpr int kRows = 8, kBlocks = 8, kThreads = 256, kWarps = kThreads / 32;
constexpr int kMaxExperts = 128, kBlockExperts = kMaxExperts / kBlocks;
static_assert(kBlockExperts == 16 && kRows == 8, "the tile of an MMA");

// Columns a warp takes at a time, eight a lane of a quad. Which column is which of an MMA's K does
// not matter as long as both operands agree: a lane's eight are its K of two MMAs.
constexpr int kStepColumns = 32;
constexpr int kMaxSteps = 11;
constexpr int kMaxHidden = kMaxSteps * kWarps * kStepColumns;

struct RouterShared {
  float sums[kWarps][kBlockExperts][kRows];
  double squares[kWarps][kRows];
  float factors[kRows];
  float logits[kMaxExperts];  // of this block's row
};

__device__ int Column(int step) {
  const int warp = threadIdx.x / 32, quad_lane = threadIdx.x % 4;
  return (step * kWarps + warp) * kStepColumns + quad_lane * kVector;
}

// What a lane multiplies by: rows lane / 4 and lane / 4 + 8 of the block's experts.
struct Weights {
  uint4 low[kMaxSteps], high[kMaxSteps], scale[kMaxSteps];

  __device__ void Load(const RouterParams& p, int rank) {
    const int expert = rank * kBlockExperts + static_cast<int>(threadIdx.x) % 32 / 4;
    const Bf16* row = p.proj + int64_t{expert} * p.hidden;
#pragma unroll
    for (int step = 0; step < kMaxSteps; ++step) {
      const int column = Column(step);
      low[step] = high[step] = scale[step] = make_uint4(0, 0, 0, 0);
      if (column >= p.hidden) continue;
      if (expert < p.num_experts) low[step] = LoadStreaming(row + column);
      if (expert + 8 < p.num_experts)
        high[step] = LoadStreaming(row + int64_t{8} * p.hidden + column);
      scale[step] = __ldg(reinterpret_cast<const uint4*>(p.scale + column));
    }
  }
};

// Sums over the warp's columns: products with the block's experts, and squares.
__device__ void Multiply(const RouterParams& p, const Weights& w, int row, RouterShared& shared) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  uint4 x[kMaxSteps];
#pragma unroll
  for (int step = 0; step < kMaxSteps; ++step) {
    x[step] = make_uint4(0, 0, 0, 0);
    if (Column(step) < p.hidden && row < p.num_rows)
      x[step] = *reinterpret_cast<const uint4*>(p.x + int64_t{row} * p.x_stride + Column(step));
  }
  float sums[2][4] = {};
  double squares = 0;
#pragma unroll
  for (int step = 0; step < kMaxSteps; ++step) {
    float v[kVector], scale[kVector];
    Unpack8(x[step], v);
    Unpack8(w.scale[step], scale);
    squares += SumSquares(v);
    uint32_t large[4], small[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float a = v[2 * i] * scale[2 * i], b = v[2 * i + 1] * scale[2 * i + 1];
      large[i] = PackBf16(a, b);
      small[i] = PackBf16(a - LowHalf(large[i]), b - HighHalf(large[i]));
    }
    const uint32_t first[4] = {w.low[step].x, w.high[step].x, w.low[step].y, w.high[step].y};
    const uint32_t second[4] = {w.low[step].z, w.high[step].z, w.low[step].w, w.high[step].w};
    Mma16816(sums[0], first, large[0], large[1]);
    Mma16816(sums[1], first, small[0], small[1]);
    Mma16816(sums[0], second, large[2], large[3]);
    Mma16816(sums[1], second, small[2], small[3]);
  }
  squares += __shfl_xor_sync(kFullWarp, squares, 1);
  squares += __shfl_xor_sync(kFullWarp, squares, 2);
  if (lane % 4 == 0) shared.squares[warp][lane / 4] = squares;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    shared.sums[warp][lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = sums[0][i] + sums[1][i];
}

// The block's logits, each to the block that finishes its row.
__device__ void SendLogits(const RouterParams& p, RouterShared& shared, int rank) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < kRows) {
    double sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += shared.squares[w][thread];
    shared.factors[thread] = NormFactor(sum, p.hidden, p.eps);
  }
  __syncthreads();
  if (thread >= kBlockExperts * kRows) return;
  const int expert = thread / kRows, row = thread % kRows;
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += shared.sums[w][expert][row];
  const float root = 1.0f / sqrtf(static_cast<float>(p.hidden));
  StoreCluster(ClusterAddress(SharedAddress(shared.logits + rank * kBlockExperts + expert),
                              static_cast<uint32_t>(row)),
               sum * shared.factors[row] * root);
}

// Threads from `first` on.
__device__ void WriteInput(const RouterParams& p, int row, float factor, int first) {
  const int threads = kThreads - first;
  for (int column = (static_cast<int>(threadIdx.x) - first) * kVector; column < p.hidden;
       column += threads * kVector) {
    float v[kVector];
    Unpack8(*reinterpret_cast<const uint4*>(p.x + int64_t{row} * p.x_stride + column), v);
    Scale(v, factor, LoadNorm(p.z_norm, column));
    *reinterpret_cast<uint4*>(p.z + int64_t{row} * p.z_stride + column) = Pack8(v);
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

// kRepeats: a cluster takes more than one eight of rows. Weights that are kept for it cost few rows
// a microsecond or two.
template <bool kRepeats>
__global__ void __launch_bounds__(kThreads, 1)
    RouterKernel(const __grid_constant__ RouterParams p) {
  __shared__ RouterShared shared;
  const int rank = static_cast<int>(ClusterRank());
  GridDependencyLaunch();
  Weights weights;
  weights.Load(p, rank);
  GridDependencyWait();
  for (int first_row = static_cast<int>(blockIdx.x) / kBlocks * kRows; first_row < p.num_rows;
       first_row += static_cast<int>(gridDim.x) / kBlocks * kRows) {
    Multiply(p, weights, first_row + static_cast<int>(threadIdx.x) % 32 / 4, shared);
    // All blocks of the cluster run, and are done with the rows before, when their shared memory is
    // written.
    ClusterBarrier();
    SendLogits(p, shared, rank);
    ClusterBarrier();
    const int row = first_row + rank;
    if (row < p.num_rows && threadIdx.x < 32)
      ChooseExperts(p, shared.logits, row);
    else if (row < p.num_rows && p.z != nullptr)
      WriteInput(p, row, shared.factors[rank], 32);
    if (!kRepeats) break;
  }
}

}  // namespace

void LaunchRouter(const RouterParams& p, Stream stream) {
  const char* name = "Router";
  Require(p.num_experts <= kMaxExperts && p.top_k <= kMaxTopK && p.top_k <= p.num_experts, name,
          "experts", p.num_experts);
  Require(p.hidden <= kMaxHidden && p.hidden % 8 == 0 && p.x_stride % 8 == 0 && Aligned16(p.x),
          name, "columns", p.hidden);
  Require(p.z == nullptr || (p.z_stride % 8 == 0 && Aligned16(p.z)), name, "row stride",
          p.z_stride);
  if (p.num_rows == 0) return;
  // A block holds its weights in the registers of a whole multiprocessor: as many clusters as run
  // beside one another.
  static const int places = NumClusters(RouterKernel<true>, kThreads, kBlocks);
  const int clusters = (p.num_rows + kRows - 1) / kRows;
  const auto launch = [&](void (*kernel)(RouterParams), int of) {
    Launch(name, kernel, {static_cast<unsigned>(of * kBlocks), kThreads, 0, kBlocks}, stream, p);
  };
  constexpr int kFewRounds = 4;
  if (clusters <= kFewRounds * places)
    launch(RouterKernel<false>, clusters);
  else
    launch(RouterKernel<true>, places);
}

}  // namespace lapidary::kernels
