// The prefill attention kernel over folded rows: a tile of 64 keys by 640 columns is K and V, its
// first 512 columns the scores' operand, its last 512 the values'. Group 0 has the scores, the
// softmax and half of O's columns, group 1 the other half; 64 query rows.
//
// Two tiles are all that fits, so a tile must go as soon as it can: group 0 issues P V of a page
// and behind it the scores of the next; when these are done it has its softmax, and meanwhile, told
// by `go`, group 1's P V keeps the tensor cores busy. P and the rows' scales lie where the tile's
// columns of K alone were, which nobody reads again. A tile comes in boxes of two blocks of 64
// columns: 0 is K's, 1 and 2 the values of group 0, 3 and 4 those of group 1; scores begin with
// box 1, and a group gives its boxes back by itself.
#ifndef LAPIDARY_KERNELS_ATTENTION_PREFILL_FOLDED_CUH_
#define LAPIDARY_KERNELS_ATTENTION_PREFILL_FOLDED_CUH_

#include "kernels/attention/prefill.cuh"

namespace lapidary::kernels {

struct FoldedPrefillConfig {
  static constexpr int kHeadDim = kFoldedHeadDim;
  static constexpr bool kSplitsHead = true;  // the groups have the same rows
  static constexpr int kBlockRows = 64, kColumns = 256;
  static constexpr int kConsumers = 256, kThreads = kConsumers + 128;
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
  static constexpr int kBlockBytes = kPageTokens * 128;
  static constexpr int kBoxes = kFoldedColumns / 64 / kFoldedBoxBlocks;
  static constexpr int kBoxBytes = kFoldedBoxBlocks * kBlockBytes;
  static constexpr int kTileBytes = kBoxes * kBoxBytes, kRingStages = 2;

  static constexpr int kQ = 0;
  static constexpr int kStages = kBlockRows * kHeadDim * 2;
  static constexpr int kSharedBytes = kStages + kRingStages * kTileBytes + 1024;
  // In box 0: P as group 1's registers want it, then each thread's scales, then its factors.
  static constexpr int kScales = kBlockRows * kPageTokens * 2, kFactors = kScales + 128 * 8;
  static_assert(kFactors + 128 * 8 <= kBoxBytes, "box 0");
  static_assert(kSharedBytes + 256 <= 232448, "shared memory of a block on sm_90");
};

struct FoldedPrefillShared {
  unsigned long long full[FoldedPrefillConfig::kRingStages][FoldedPrefillConfig::kBoxes];
  unsigned long long empty[FoldedPrefillConfig::kRingStages][2];  // by the group that gives back
  unsigned long long go[FoldedPrefillConfig::kRingStages];        // group 1 may take P
  unsigned long long q;  // all warps have loaded their part of Q
};

struct FoldedPrefill : PrefillKernel<FoldedPrefillConfig> {
  using Config = FoldedPrefillConfig;

  struct Tiles {
    uint32_t stages, full, empty, go;
    int stage = 0;
    uint32_t phase = 0;

    __device__ uint32_t tile() const { return stages + stage * Config::kTileBytes; }
    __device__ uint32_t values(int group) const {
      return tile() + (1 + 2 * group) * Config::kBoxBytes;
    }
    __device__ uint32_t full_barrier(int box) const {
      return full + (stage * Config::kBoxes + box) * 8;
    }
    __device__ uint32_t empty_barrier(int group) const { return empty + (stage * 2 + group) * 8; }
    // A thread of group 0 says that its part of P is there, group 1 waits for all of them.
    __device__ void LetGo() const { MbarrierArrive(go + stage * 8); }
    __device__ void WaitGo() const { MbarrierWait(go + stage * 8, phase); }
    __device__ void WaitFull(int box) const { MbarrierWait(full_barrier(box), phase); }
    __device__ void Release(int group) const {
      if (threadIdx.x % 128 == 0) MbarrierArrive(empty_barrier(group));
    }
    __device__ void Advance() {
      if (++stage == Config::kRingStages) stage = 0, phase ^= 1;
    }
  };

  static __device__ void Load(const PrefillAttentionParams& p, const Tiles& tiles, int box,
                              int unit) {
    MbarrierArriveExpect(tiles.full_barrier(box), Config::kBoxBytes);
    TmaLoad4d(tiles.tile() + box * Config::kBoxBytes, &p.kv_map, 0, 0, box * kFoldedBoxBlocks, unit,
              tiles.full_barrier(box), kEvictLast);
  }

  // One thread.
  static __device__ void Produce(const PrefillAttentionParams& p, Tiles tiles) {
    PrefillItem item;
    for (int index = static_cast<int>(blockIdx.x); Item(p, index, item);
         index += static_cast<int>(gridDim.x)) {
      const int32_t* table =
          p.rows.page_table + int64_t{p.spans[item.span].slot} * p.rows.table_stride;
      for (int cell = item.first_page; cell <= item.last_page; ++cell) {
        const int64_t bytes = PageOffset(p.kv, table[cell]) + item.kv_head * KvHeadBytes(p.kv);
        const int unit = static_cast<int>(bytes / kFoldedUnitBytes);
        MbarrierWait(tiles.empty_barrier(0), tiles.phase ^ 1);
        Load(p, tiles, 1, unit);
        Load(p, tiles, 2, unit);
        MbarrierWait(tiles.empty_barrier(1), tiles.phase ^ 1);
        Load(p, tiles, 3, unit);
        Load(p, tiles, 0, unit);
        Load(p, tiles, 4, unit);
        tiles.Advance();
      }
    }
  }

  // All consumers: Q's columns in the order of the rows. Group 0 has still to wait for it.
  static __device__ void LoadQ(const PrefillAttentionParams& p, const PrefillItem& item,
                               uint32_t q_tile, uint32_t barrier) {
    constexpr int kChunks = Config::kHeadDim / 8;
    const PrefillSpan& s = p.spans[item.span];
    const int heads = Group(p);
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < 64 * kChunks; i += Config::kConsumers) {
      const int r = i / kChunks, block = i % kChunks / 8, chunk = i % 8;
      const int packed = item.first_packed + r, row = packed / heads;
      uint4 v = make_uint4(0, 0, 0, 0);
      if (row < s.num_rows)
        v = *reinterpret_cast<const uint4*>(p.q + int64_t{s.first_row + row} * p.q_stride +
                                            int64_t{item.kv_head * heads + packed % heads} *
                                                Config::kHeadDim +
                                            FoldedKeyBlock(block) * 64 + chunk * 8);
      asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(
                       q_tile + block * Config::kBlockBytes + Swizzle128(r, chunk)),
                   "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                   : "memory");
    }
    FenceProxyAsync();
    __syncwarp();
    if (threadIdx.x % 32 == 0) MbarrierArrive(barrier);
  }

  // Box by box, as they come.
  static __device__ void Scores(float (&s)[32], uint32_t q_tile, const Tiles& tiles) {
    constexpr int kOrder[4] = {1, 2, 3, 0};
    const uint64_t q = KMajorDescriptor(Uniform(q_tile)),
                   k = KMajorDescriptor(Uniform(tiles.tile()));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      tiles.WaitFull(kOrder[i]);
      WgmmaFence();
#pragma unroll
      for (int step = 0; step < kFoldedBoxBlocks * 4; ++step) {
        const uint64_t offset =
            (kOrder[i] * Config::kBoxBytes + step / 4 * Config::kBlockBytes + step % 4 * 32) / 16;
        Wgmma(s, q + offset, k + offset, i + step > 0);
      }
    }
    WgmmaCommit();
  }

  // Keys past the last that a row of the block sees may hold anything, and 0 * NaN is NaN.
  static __device__ void ZeroTail(const PrefillAttentionParams& p, const PrefillItem& item,
                                  uint32_t values, int group) {
    const PrefillSpan& s = p.spans[item.span];
    const int last = min((item.first_packed + Config::kBlockRows - 1) / Group(p), s.num_rows - 1);
    const int end = p.rows.key_ends[s.first_row + last] - item.last_page * kPageTokens;
    if (end < kPageTokens) ZeroValues(values, 0, end, group);
  }

  // A thread's registers to the same thread of the other group.
  static __device__ uint32_t ThreadPlace(const Tiles& tiles, int offset, int bytes) {
    return tiles.tile() + offset + threadIdx.x % 128 * bytes;
  }
  static __device__ void Publish(const Tiles& tiles, const uint32_t (&weights)[4][4],
                                 const float (&scale)[2]) {
    NamedBarrier(1, 128);  // the scores of all warps have read K
    // Group 1 took what lay here before: the tile could not have come otherwise, but that order
    // goes by way of TMA, and this one is between the threads themselves.
    MbarrierWait(tiles.empty_barrier(1), tiles.phase ^ 1);
#pragma unroll
    for (int step = 0; step < 4; ++step)
      asm volatile(
          "st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(ThreadPlace(tiles, step * 128 * 16, 16)),
          "r"(weights[step][0]), "r"(weights[step][1]), "r"(weights[step][2]), "r"(weights[step][3])
          : "memory");
    StoreShared2(ThreadPlace(tiles, Config::kScales, 8), scale[0], scale[1]);
    FenceProxyAsync();  // before the box goes back to TMA
  }
  static __device__ void Take(const Tiles& tiles, uint32_t (&weights)[4][4], float (&scale)[2]) {
#pragma unroll
    for (int step = 0; step < 4; ++step)
      asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                   : "=r"(weights[step][0]), "=r"(weights[step][1]), "=r"(weights[step][2]),
                     "=r"(weights[step][3])
                   : "r"(ThreadPlace(tiles, step * 128 * 16, 16))
                   : "memory");
    const float2 v = LoadShared2(ThreadPlace(tiles, Config::kScales, 8));
    scale[0] = v.x, scale[1] = v.y;
  }

  // Mostly no row has a new maximum.
  static __device__ void RescaleIfMoved(float (&o)[128], const float (&scale)[2]) {
    if (__any_sync(kFullWarp, scale[0] != 1.0f || scale[1] != 1.0f)) Rescale(o, scale);
  }

  // This group's columns of O, back in the model's order.
  static __device__ void WriteOut(const PrefillAttentionParams& p, const PrefillItem& item,
                                  const float (&factor)[2], const float (&o)[128], int group) {
    const PrefillSpan& s = p.spans[item.span];
    const int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32, heads = Group(p);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int packed = item.first_packed + warp * 16 + i * 8 + lane / 4;
      if (packed / heads >= s.num_rows) continue;
      Bf16* out = p.out + int64_t{s.first_row + packed / heads} * p.out_stride +
                  int64_t{item.kv_head * heads + packed % heads} * Config::kHeadDim + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < 32; ++n)
        *reinterpret_cast<uint32_t*>(out + FoldedValueBlock(group * 4 + n / 8) * 64 + n % 8 * 8) =
            PackBf16(o[4 * n + 2 * i] * factor[i], o[4 * n + 2 * i + 1] * factor[i]);
    }
  }

  // Group 0.
  static __device__ void ConsumeScores(const PrefillAttentionParams& p, Tiles tiles,
                                       uint32_t q_tile, uint32_t q_barrier) {
    PrefillItem item;
    uint32_t q_phase = 0;
    for (int index = static_cast<int>(blockIdx.x); Item(p, index, item);
         index += static_cast<int>(gridDim.x)) {
      LoadQ(p, item, q_tile, q_barrier);
      MbarrierWait(q_barrier, q_phase);
      q_phase ^= 1;
      Rows rows = LoadRows(p, item, 0);
      float s[32], o[128] = {}, scale[2];
      uint32_t weights[4][4];
      Scores(s, q_tile, tiles);
      WgmmaWait<0>();
      Softmax(p, s, rows, item.first_page, scale);
      Pack(s, weights, rows, scale);
      Publish(tiles, weights, scale);
      for (int page = item.first_page + 1; page <= item.last_page; ++page) {
        Tiles next = tiles;
        next.Advance();
        AddValues(o, weights, tiles.values(0));
        Scores(s, q_tile, next);
        WgmmaWait<1>();
        tiles.Release(0);
        WgmmaWait<0>();
        tiles.LetGo();
        Softmax(p, s, rows, page, scale);
        RescaleIfMoved(o, scale);
        Pack(s, weights, rows, scale);
        Publish(next, weights, scale);
        tiles = next;
      }
      ZeroTail(p, item, tiles.values(0), 0);
      AddValues(o, weights, tiles.values(0));
      float factor[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) factor[i] = Normaliser(rows.sum[i]);
      StoreShared2(ThreadPlace(tiles, Config::kFactors, 8), factor[0], factor[1]);
      FenceProxyAsync();
      tiles.LetGo();
      WgmmaWait<0>();
      tiles.Release(0);
      tiles.Advance();
      WriteOut(p, item, factor, o, 0);
    }
  }

  // Group 1.
  static __device__ void ConsumeValues(const PrefillAttentionParams& p, Tiles tiles,
                                       uint32_t q_tile, uint32_t q_barrier) {
    PrefillItem item;
    for (int index = static_cast<int>(blockIdx.x); Item(p, index, item);
         index += static_cast<int>(gridDim.x)) {
      LoadQ(p, item, q_tile, q_barrier);
      float o[128] = {}, factor[2];
      for (int page = item.first_page; page <= item.last_page; ++page) {
        float scale[2];
        uint32_t weights[4][4];
        tiles.WaitGo();
        Take(tiles, weights, scale);
        RescaleIfMoved(o, scale);
        tiles.WaitFull(3);
        tiles.WaitFull(4);
        if (page == item.last_page) {
          const float2 v = LoadShared2(ThreadPlace(tiles, Config::kFactors, 8));
          factor[0] = v.x, factor[1] = v.y;
          ZeroTail(p, item, tiles.values(1), 1);
        }
        AddValues(o, weights, tiles.values(1));
        WgmmaWait<0>();
        NamedBarrier(2, 128);  // all warps have taken their weights
        tiles.Release(1);
        tiles.Advance();
      }
      WriteOut(p, item, factor, o, 1);
    }
  }
};

__global__ void __launch_bounds__(FoldedPrefillConfig::kThreads, 1)
    FoldedPrefillKernel(const __grid_constant__ PrefillAttentionParams p) {
  extern __shared__ char dynamic_shared[];
  __shared__ FoldedPrefillShared shared;
  using Config = FoldedPrefillConfig;
  const uint32_t base = (SharedAddress(dynamic_shared) + 1023) / 1024 * 1024;
  if (threadIdx.x == 0) {
    PrefetchTensorMap(&p.kv_map);
    for (int stage = 0; stage < Config::kRingStages; ++stage) {
      for (int box = 0; box < Config::kBoxes; ++box)
        MbarrierInit(SharedAddress(&shared.full[stage][box]), 1);
      for (int group = 0; group < 2; ++group)
        MbarrierInit(SharedAddress(&shared.empty[stage][group]), 1);
      MbarrierInit(SharedAddress(&shared.go[stage]), 128);
    }
    MbarrierInit(SharedAddress(&shared.q), Config::kConsumers / 32);
    MbarrierInitFence();
  }
  GridDependencyLaunch();
  GridDependencyWait();
  __syncthreads();
  const FoldedPrefill::Tiles tiles{base + Config::kStages, SharedAddress(shared.full),
                                   SharedAddress(shared.empty), SharedAddress(shared.go)};
  // The same in all lanes, which the compiler cannot know: roles are no divergence then.
  const int group = __shfl_sync(kFullWarp, static_cast<int>(threadIdx.x) / 128, 0);
  if (group == 2) {
    SetMaxRegistersDown<Config::kProducerRegisters>();
    if (threadIdx.x == Config::kConsumers) FoldedPrefill::Produce(p, tiles);
  } else {
    SetMaxRegistersUp<Config::kConsumerRegisters>();
    if (group == 0)
      FoldedPrefill::ConsumeScores(p, tiles, base + Config::kQ, SharedAddress(&shared.q));
    else
      FoldedPrefill::ConsumeValues(p, tiles, base + Config::kQ, SharedAddress(&shared.q));
  }
}

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_ATTENTION_PREFILL_FOLDED_CUH_
