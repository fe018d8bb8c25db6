// RowDraw: a block sorts the best of a row and draws from them. RowScore: log probabilities.
#include "kernels/common/launch.cuh"
#include "kernels/sampling/row_kernels.h"
#include "kernels/sampling/row_sampling.cuh"

namespace lapidary::kernels {
namespace {

constexpr int kThreads = 512;
constexpr int kMaxListed = kMaxRowChunks * kMaxChunkBest;

struct DrawShared {
  union {
    uint64_t list[kMaxListed];
    alignas(128) float x[kRowChunk];  // the chunk that a plain row's token lies in
  };
  double prefix[kMaxListed];
  double partial[kThreads / 32];
  uint32_t keys[kMaxRowChunks];
  int count;
  uint64_t barrier;
};

static_assert(kThreads / 32 == kMaxRowChunks, "a warp a chunk");

constexpr int kPerLane = kMaxChunkBest / 32;

// The n-th largest of the lanes' keys.
__device__ uint32_t NthOfWarp(uint32_t key, int n) {
  for (int i = 1; i < n; ++i) {
    const uint32_t largest = __reduce_max_sync(kFullWarp, key);
    const unsigned holders = __ballot_sync(kFullWarp, key == largest);
    if (static_cast<int>(threadIdx.x) % 32 == __ffs(static_cast<int>(holders)) - 1) key = 0;
  }
  return __reduce_max_sync(kFullWarp, key);
}

// The row's listed candidates that reach `least`, best first; returns how many. with_best: the best
// 64 are enough.
__device__ int Gather(DrawShared& shared, const RowSamplingParams& p, const ChunkSummary* chunks,
                      ChunkBest ChunkSummary::* best, const uint64_t* lists, uint32_t least,
                      bool with_best) {
  if (threadIdx.x == 0) shared.count = 0;
  const int chunk = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int num_chunks = (p.vocab + kRowChunk - 1) / kRowChunk;
  const int listed = chunk < num_chunks ? (chunks[chunk].*best).count : 0;
  uint64_t mine[kPerLane];
  uint32_t lane_best = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int place = i * 32 + lane;
    mine[i] = place < listed ? lists[chunk * kMaxChunkBest + place] : 0;
    lane_best = max(lane_best, static_cast<uint32_t>(mine[i] >> 32));
  }
  // If each of n chunks has 64 / n candidates that reach a key, 64 reach it.
  if (with_best && num_chunks >= kMaxRowChunks / 2) {
    const int share = (kMaxExactTopK + num_chunks - 1) / num_chunks;
    const uint32_t key = NthOfWarp(lane_best, share);
    if (lane == 0) shared.keys[chunk] = key;
    __syncthreads();
    uint32_t lowest = shared.keys[0];
    for (int c = 1; c < num_chunks; ++c) lowest = min(lowest, shared.keys[c]);
    least = max(least, lowest);
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kPerLane; ++i)
    if (mine[i] != 0 && mine[i] >> 32 >= least) shared.list[atomicAdd(&shared.count, 1)] = mine[i];
  __syncthreads();
  const int count = shared.count;
  SortCandidates(shared.list, count);
  return count;
}

// What the chunks of a row say together.
struct RowSummary {
  uint32_t complete = 0, enough = 0;
  bool is_finite = true;
};

__device__ RowSummary Summarize(const RowSamplingParams& p, const ChunkSummary* chunks,
                                ChunkBest ChunkSummary::* best) {
  RowSummary row;
#pragma unroll
  for (int c = 0; c < kMaxRowChunks; ++c) {
    if (c * kRowChunk >= p.vocab) continue;
    const ChunkBest& listed = chunks[c].*best;
    row.complete = max(row.complete, listed.complete);
    row.enough = max(row.enough, listed.enough);
    row.is_finite &= chunks[c].is_finite != 0;
  }
  return row;
}

// Of the filtered row: of all its candidates, listed or not.
__device__ double TotalWeight(const RowSamplingParams& p, const ChunkSummary* chunks, float max) {
  const int c = static_cast<int>(threadIdx.x) % 32;
  double mine = 0;
  if (c < kMaxRowChunks && c * kRowChunk < p.vocab && chunks[c].sum > 0)
    mine = chunks[c].sum * exp(static_cast<double>(chunks[c].max) - static_cast<double>(max));
  return WarpSum(mine);
}

// The draw from the best `count`, sorted, with their prefix sums; `all`: there are no others.
// kUndecided where the others matter. One thread.
__device__ int Draw(const DrawShared& shared, const RowTask& task, int count, bool all,
                    double total) {
  const double* prefix = shared.prefix;
  if (!all && task.top_k > 0) {
    if (task.top_k > count) return kUndecided;
    count = task.top_k, all = true;
  }
  if (all) total = prefix[count - 1];
  if (task.top_p < 1.0f) {
    const int below = CountBelow<false>(prefix, count, total * static_cast<double>(task.top_p));
    if (below == count && !all) return kUndecided;
    count = min(below + 1, count), all = true;
  }
  if (task.min_p > 0.0f) {
    const auto weight = [&](int i) {
      return exp(static_cast<double>(LogitOf(shared.list[i])) -
                 static_cast<double>(LogitOf(shared.list[0])));
    };
    int begin = 1, end = count;  // the best weighs 1
    while (begin < end) {
      const int middle = (begin + end) / 2;
      if (weight(middle) >= static_cast<double>(task.min_p))
        begin = middle + 1;
      else
        end = middle;
    }
    if (begin == count && !all) return kUndecided;
    count = begin, all = true;
  }
  if (all) total = prefix[count - 1];
  const int place = CountBelow<true>(prefix, count, task.uniform * total);
  if (place == count) return all ? IdOf(shared.list[0]) : kUndecided;
  return IdOf(shared.list[place]);
}

// The element at which the weights exp(x - max) of a chunk, added in the order of ids, exceed
// `target`; the last that weighs anything if rounding hides it. A warp has neighbouring elements.
__device__ int PlaceInChunk(DrawShared& shared, float largest, double target) {
  constexpr int kWarpPart = kRowChunk / (kThreads / 32), kSteps = kWarpPart / 128;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const auto first = [&](int step) { return warp * kWarpPart + step * 128 + lane * 4; };
  const auto weights = [&](int step, double(&w)[4]) {
    const float4 x = *reinterpret_cast<const float4*>(shared.x + first(step));
    const float v[4] = {x.x, x.y, x.z, x.w};
    double sum = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) sum += w[i] = static_cast<double>(expf(v[i] - largest));
    return sum;
  };
  double w[4], sum = 0;
  for (int step = 0; step < kSteps; ++step) sum += weights(step, w);
  sum = WarpSum(sum);
  if (lane == 0) shared.partial[warp] = sum;
  if (threadIdx.x == 0) shared.count = -1;
  __syncthreads();
  double before = 0;
  int last = 0;  // the last warp with a weight
  for (int i = 0; i < kThreads / 32; ++i) {
    if (i < warp) before += shared.partial[i];
    if (shared.partial[i] > 0) last = i;
  }
  if (before <= target && (before + sum > target || warp == last)) {
    int place = -1, heavy = -1;
    for (int step = 0; step < kSteps && place < 0; ++step) {
      double prefix = weights(step, w);
      const double mine = prefix;
#pragma unroll
      for (int offset = 1; offset < 32; offset *= 2) {
        const double below = __shfl_up_sync(kFullWarp, prefix, offset);
        if (lane >= offset) prefix += below;
      }
      double reached = before + prefix - mine;
      int found = kRowChunk, weighs = -1;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        reached += w[i];
        if (w[i] > 0) weighs = first(step) + i;
        if (w[i] > 0 && reached > target) found = min(found, first(step) + i);
      }
      const auto least = __reduce_min_sync(kFullWarp, found);
      heavy = max(heavy, __reduce_max_sync(kFullWarp, weighs));
      if (least < kRowChunk) place = least;
      before += __shfl_sync(kFullWarp, prefix, 31);
    }
    if (lane == 0) atomicMax(&shared.count, place >= 0 ? place : heavy);
  }
  __syncthreads();
  return shared.count;
}

// A row without filters of its order: the chunk in which the sum of weights, in the order of ids,
// exceeds what was drawn, then the place in it.
__device__ int DrawPlain(DrawShared& shared, const RowSamplingParams& p, const RowTask& task,
                         const ChunkSummary* chunks) {
  const int num_chunks = (p.vocab + kRowChunk - 1) / kRowChunk;
  float max = -INFINITY;
  for (int c = 0; c < num_chunks; ++c)
    if (chunks[c].sum > 0) max = fmaxf(max, chunks[c].max);
  if (max == -INFINITY) return -1;
  const auto share = [&](int c) {
    return exp(static_cast<double>(chunks[c].max) - static_cast<double>(max));
  };
  double total = 0;
  for (int c = 0; c < num_chunks; ++c)
    if (chunks[c].sum > 0) total += chunks[c].sum * share(c);
  double left = task.uniform * total;
  int chunk = 0, last = 0;
  for (int c = 0; c < num_chunks; ++c) {
    if (chunks[c].sum > 0) last = c;
  }
  for (; chunk < last; ++chunk) {
    const double weight = chunks[chunk].sum > 0 ? chunks[chunk].sum * share(chunk) : 0;
    if (weight > left) break;
    left -= weight;
  }
  const int first = chunk * kRowChunk, count = min(kRowChunk, p.vocab - first);
  for (int i = count + static_cast<int>(threadIdx.x); i < kRowChunk; i += kThreads)
    shared.x[i] = -INFINITY;
  LoadPiece(p, task, first, count, shared.x, &shared.barrier);
  FilterPiece(p, task, first, count, shared.x);
  ScalePiece(task.temperature, count, shared.x);
  __syncthreads();
  return first + PlaceInChunk(shared, chunks[chunk].max, left / share(chunk));
}

__global__ void __launch_bounds__(kThreads)
    RowDrawKernel(const __grid_constant__ RowSamplingParams p) {
  extern __shared__ char dynamic_shared[];
  auto& shared = *reinterpret_cast<DrawShared*>(dynamic_shared);
  GridDependencyLaunch();
  GridDependencyWait();
  const RowTask task = p.tasks[blockIdx.x];
  const ChunkSummary* chunks = p.chunks + int64_t{blockIdx.x} * kMaxRowChunks;
  RowResult& result = p.results[blockIdx.x];
  const RowSummary row = Summarize(p, chunks, &ChunkSummary::best);
  int token = -1;
  if (task.draws && row.is_finite && IsPlain(task)) {
    token = DrawPlain(shared, p, task, chunks);
  } else if (task.draws && row.is_finite) {
    const bool is_open = IsOpen(task);
    int count = Gather(shared, p, chunks, &ChunkSummary::best,
                       p.best + int64_t{blockIdx.x} * kMaxRowChunks * kMaxChunkBest,
                       is_open ? row.complete : row.enough, !is_open);
    const bool all = !is_open || row.complete == 0;
    if (!IsGreedy(task) && all && task.top_k > 0) count = min(count, task.top_k);
    if (IsGreedy(task) || count == 0) {
      // Every candidate of an undecided row may lie below `complete`.
      if (count > 0)
        token = IdOf(shared.list[0]);
      else if (!all)
        token = kUndecided;
    } else {
      const float max = LogitOf(shared.list[0]);
      SumWeights(shared.list, count, max, shared.prefix, shared.partial);
      const double total = all ? 0 : TotalWeight(p, chunks, max);
      if (threadIdx.x == 0) token = Draw(shared, task, count, all, total);
    }
  }
  if (threadIdx.x != 0) return;
  result.token = token;
  result.is_finite = row.is_finite;
}

__global__ void __launch_bounds__(kThreads)
    RowScoreKernel(const __grid_constant__ RowSamplingParams p) {
  extern __shared__ char dynamic_shared[];
  auto& shared = *reinterpret_cast<DrawShared*>(dynamic_shared);
  GridDependencyLaunch();
  GridDependencyWait();
  const RowTask task = p.tasks[blockIdx.x];
  const RowResult& result = p.results[blockIdx.x];
  RowScores& scores = p.scores[blockIdx.x];
  const int token = task.draws ? result.token : task.token;
  if (!task.scores || !result.is_finite || token < 0) return;
  const ChunkSummary* chunks = p.chunks + int64_t{blockIdx.x} * kMaxRowChunks;
  float max = -INFINITY;
  for (int c = 0; c * kRowChunk < p.vocab; ++c) max = fmaxf(max, chunks[c].raw_max);
  double sum = 0;
  for (int c = 0; c * kRowChunk < p.vocab; ++c)
    sum +=
        chunks[c].raw_sum * exp(static_cast<double>(chunks[c].raw_max) - static_cast<double>(max));
  const double log_sum = static_cast<double>(max) + log(sum);
  const float* logits = p.logits + task.row * p.logits_stride;
  const auto logprob = [&](int id) {
    return static_cast<float>(static_cast<double>(logits[id]) - log_sum);
  };
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) scores.logprob = logprob(token);
  for (int i = task.asked.begin + thread; i < task.asked.end; i += kThreads)
    p.asked_logprobs[i] = logprob(p.asked[i]);
  if (task.num_top == 0) return;
  const RowSummary row = Summarize(p, chunks, &ChunkSummary::raw_best);
  const int count =
      Gather(shared, p, chunks, &ChunkSummary::raw_best,
             p.raw_best + int64_t{blockIdx.x} * kMaxRowChunks * kMaxChunkBest, row.enough, true);
  if (thread >= min(task.num_top, count)) return;
  const int id = IdOf(shared.list[thread]);
  scores.top_ids[thread] = id;
  scores.top_logprobs[thread] = logprob(id);
}

}  // namespace

void LaunchRowDraw(const RowSamplingParams& p, Stream stream) {
  Launch("RowDraw", RowDrawKernel,
         {static_cast<unsigned>(p.num_tasks), kThreads, static_cast<unsigned>(sizeof(DrawShared))},
         stream, p);
}

void LaunchRowScore(const RowSamplingParams& p, Stream stream) {
  Launch("RowScore", RowScoreKernel,
         {static_cast<unsigned>(p.num_tasks), kThreads, static_cast<unsigned>(sizeof(DrawShared))},
         stream, p);
}

void LaunchRowSampling(const RowSamplingParams& p, const RowSamplingWork& work, Stream stream) {
  const char* name = "RowSampling";
  Require(p.vocab > 0 && p.vocab <= kRowChunk * kMaxRowChunks && p.vocab % 4 == 0, name,
          "vocabulary", p.vocab);
  Require(p.logits_stride % 4 == 0 && Aligned16(p.logits), name, "row stride", p.logits_stride);
  if (p.num_tasks == 0) return;
  LaunchRowChunks(p, stream);
  LaunchRowDraw(p, stream);
  if (work.searches) LaunchRowSearch(p, stream);
  if (work.scores) LaunchRowScore(p, stream);
}

}  // namespace lapidary::kernels
