// Decode attention of sliding layers whose items are of one row tile and so few that each has
// blocks of its own: a cluster shares an item's units and merges them as the persistent kernel
// and its second one would, so that the bits are the same. Nothing is scheduled, and the item is
// whole when the kernel ends.
#ifndef LAPIDARY_KERNELS_ATTENTION_DECODE_WINDOW_CUH_
#define LAPIDARY_KERNELS_ATTENTION_DECODE_WINDOW_CUH_

#include "kernels/attention/decode.cuh"

namespace lapidary::kernels {

// The units of an item that one block takes.
struct WindowWalk {
  const DecodeAttentionParams& p;
  DecodeItem s;
  ItemKeys keys;
  int split, end_split;  // count from the item's first
  static constexpr int sequence = 0, item = 0;

  __device__ bool Done() const { return split >= end_split; }
  __device__ void Next() { ++split; }
  __device__ int kv_head() const { return static_cast<int>(blockIdx.y); }
  __device__ int tile() const { return 0; }
  __device__ int key_end(int row) const { return p.rows.key_ends[row]; }
  __device__ ItemKeys Keys() const { return keys; }
};

// Rows of the sequence that begins at `row`; 0 if none does. A warp calls together.
__device__ __forceinline__ int SequenceRows(const DecodeAttentionParams& p, int row) {
  if (p.max_sequence_rows == 1) return 1;
  const int lane = threadIdx.x % 32, slot = p.rows.slots[row];
  if (row > 0 && p.rows.slots[row - 1] == slot) return 0;
  const bool same = lane < p.max_sequence_rows && row + lane < p.rows.num_rows &&
                    p.rows.slots[row + lane] == slot;
  // Fewer than 32, so that some lane says no.
  return __ffs(static_cast<int>(~__ballot_sync(kFullWarp, same))) - 1;
}
// Whether `row`, which begins no sequence, is not one of the rows of the sequence before either:
// padding rows share one slot, of which a sequence has the first max_sequence_rows.
__device__ __forceinline__ bool IsPadding(const DecodeAttentionParams& p, int row) {
  const int before = row - p.max_sequence_rows;
  return before >= 0 && p.rows.slots[before] == p.rows.slots[row];
}
template <typename Config>
__device__ void ClearRow(const DecodeAttentionParams& p, int row, int kv_head) {
  if (p.rows.key_ends[row] > 0) __trap();  // a sequence of more than max_sequence_rows
  const int columns = p.num_heads / p.kv.num_kv_heads * Config::kHeadDim;
  Bf16* out = p.out + int64_t{row} * p.out_stride + int64_t{kv_head} * columns;
  for (int i = static_cast<int>(threadIdx.x) * 4; i < columns; i += Config::kThreads * 4)
    StoreFour(out + i, make_float4(0, 0, 0, 0));
}

// The keys of an item of one tile. A warp calls together.
__device__ __forceinline__ ItemKeys LoadKeys(const DecodeAttentionParams& p, int row,
                                             int num_rows) {
  const int lane = threadIdx.x % 32;
  const int end = lane < num_rows ? p.rows.key_ends[row + lane] : 0;
  const int begin = end > 0 ? KeyBegin(end, p.window) : 0x7fffffff;
  return {__reduce_min_sync(kFullWarp, begin), max(__reduce_max_sync(kFullWarp, end), 0)};
}

// Scratch is O [KV heads, units, rows, group, Dh], then (max, sum) of the same.
template <typename Config>
__device__ __forceinline__ Partial UnitPartial(const DecodeAttentionParams& p,
                                               const WindowWalk& walk, int unit) {
  const int group = p.num_heads / p.kv.num_kv_heads;
  const int64_t plane = int64_t{p.rows.num_rows} * group;
  const int64_t at =
      (int64_t{walk.kv_head()} * p.block_units + unit) * plane + int64_t{walk.s.first_row} * group;
  float* max_sum = p.partials + p.kv.num_kv_heads * p.block_units * plane * Config::kHeadDim;
  return {p.partials + at * Config::kHeadDim, max_sum + at * 2};
}

template <typename Config>
struct WindowKernel : DecodeKernel<Config> {
  using Base = DecodeKernel<Config>;
  using typename Base::Ring;
  using typename Base::Shared;
  using typename Base::State;

  // Leaves units in scratch, or the item in `out` where this block has all of it.
  static __device__ void Consume(const DecodeAttentionParams& p, WindowWalk walk,
                                 const typename Base::Query& query, Ring ring, Shared& shared,
                                 uint32_t q_shared, uint32_t p_shared) {
    Base::StoreQ(query, q_shared);
    Base::LoadEnds(p, walk, shared);
    Base::ConsumerBarrier();
    State unit, merged;
    for (; !walk.Done(); walk.Next()) {
      Base::RunUnit(walk, walk.keys, unit, ring, shared, q_shared, p_shared);
      if (!IsWhole(walk))
        Base::WritePartial(UnitPartial<Config>(p, walk, walk.split), Base::TileRows(p, walk), unit);
      else if (walk.split == 0)
        merged = unit;
      else
        merged.Merge(unit);
      if (IsWhole(walk) && walk.split + 1 == walk.s.num_splits) Base::WriteOut(p, walk, merged);
    }
  }
  // One block has the item.
  static __device__ bool IsWhole(const WindowWalk& walk) {
    return gridDim.x == 1 || walk.s.num_splits == 1;
  }

  // All threads of the cluster, after all units are in scratch.
  static __device__ void Merge(const DecodeAttentionParams& p, const WindowWalk& walk) {
    constexpr int kVectors = Config::kHeadDim / 4;
    const int count = Base::TileRows(p, walk) * kVectors;
    for (int i = static_cast<int>(blockIdx.x * Config::kThreads + threadIdx.x); i < count;
         i += static_cast<int>(gridDim.x) * Config::kThreads) {
      const int r = i / kVectors, column = i % kVectors * 4;
      const float4 o = MergeUnits<Config::kHeadDim>(walk.s.num_splits, r, column, [&](int unit) {
        return UnitPartial<Config>(p, walk, unit);
      });
      StoreFour(OutOf(p, walk.s.first_row, r, walk.kv_head(), Config::kHeadDim) + column, o);
    }
  }
};

// Block (rank in the cluster, KV head, row); one of a row that begins no sequence has nothing to
// do.
template <typename Config>
__global__ void __launch_bounds__(Config::kThreads, 1)
    WindowDecodeKernel(const __grid_constant__ DecodeAttentionParams p) {
  extern __shared__ char dynamic_shared[];
  using Kernel = WindowKernel<Config>;
  const auto [base, aligned, shared] = BeginDecode<Config>(p, dynamic_shared);
  const typename Kernel::Ring ring{base};
  __syncthreads();
  const int row = static_cast<int>(blockIdx.z), rank = static_cast<int>(blockIdx.x);
  const int num_rows = SequenceRows(p, row);
  WindowWalk walk{p, {}, {}, 0, 0};
  if (num_rows == 0) {
    if (rank == 0 && IsPadding(p, row)) ClearRow<Config>(p, row, walk.kv_head());
    return;
  }
  typename Kernel::Query query;
  if (threadIdx.x < Config::kConsumers)
    Kernel::FetchQ(p, {row, num_rows, walk.kv_head(), walk.tile()}, query);
  walk.keys = LoadKeys(p, row, num_rows);
  walk.s = MakeItem<Config>(p, row, num_rows, walk.keys.begin, walk.keys.end);
  if (walk.s.num_splits > p.block_units) __trap();  // the scratch was sized for less
  walk.split = walk.s.num_splits * rank / static_cast<int>(gridDim.x);
  walk.end_split = walk.s.num_splits * (rank + 1) / static_cast<int>(gridDim.x);
  if (threadIdx.x >= Config::kConsumers)
    Kernel::Produce(p, walk, ring);
  else
    Kernel::Consume(p, walk, query, ring, shared, base + Config::kQ, base + Config::kP);
  if (Kernel::IsWhole(walk)) return;
  ClusterBarrier();
  Kernel::Merge(p, walk);
}

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_ATTENTION_DECODE_WINDOW_CUH_
