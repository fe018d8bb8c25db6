// The prefill attention kernel: two consumer warpgroups, each with 64 query rows by 256 columns of
// O in registers, over pages of 64 keys. The products of two steps overlap the softmax between
// them: S of the next page is under way while P V of this one is.
//
// Dh = 256: the groups have different rows (128 a block) and share K and V. Dh = 512: they have the
// same 64 rows; each multiplies its half of the head's dimensions, the halves of S meet in shared
// memory, and each keeps its half of O's columns. So in both a group needs tiles of 64 keys by 256
// columns only, and its registers are the same.
#ifndef LAPIDARY_KERNELS_ATTENTION_PREFILL_CUH_
#define LAPIDARY_KERNELS_ATTENTION_PREFILL_CUH_

#include "kernels/attention/page.cuh"
#include "kernels/attention/prefill.h"
#include "kernels/common/math.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/common/wgmma.cuh"

namespace lapidary::kernels {

template <int kHeadDim_>
struct PrefillConfig {
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr bool kSplitsHead = kHeadDim == 512;  // the groups share rows and split the head
  static constexpr int kBlockRows = kSplitsHead ? 64 : 128;
  static constexpr int kColumns = 256;  // of a group
  static constexpr int kConsumers = 256, kThreads = kConsumers + 128;
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
  static constexpr int kTileBytes =
      kPageTokens * kColumns * 2;  // a stage: [4 blocks of 64 columns][64 keys][128 bytes]
  static constexpr int kBlockBytes = kPageTokens * 128;
  static constexpr int kRings = kSplitsHead ? 2 : 1, kRingStages = kSplitsHead ? 2 : 5;
  static constexpr int kReaders = kSplitsHead ? 1 : 2;  // groups that read a stage

  static constexpr int kQ = 0;  // a tile a group
  static constexpr int kStages = 2 * kTileBytes;
  static constexpr int kExchange =
      kStages + kRings * kRingStages * kTileBytes;  // halves of S: [group][16 bytes x thread]
  static constexpr int kExchangeBytes = kSplitsHead ? 2 * 64 * 64 * 4 : 0;
  static constexpr int kSharedBytes = kExchange + kExchangeBytes + 1024;
  static_assert(kSharedBytes + 256 <= 232448, "shared memory of a block on sm_90");
  static_assert(kConsumers * kConsumerRegisters + 128 * kProducerRegisters <= kThreads * 168,
                "setmaxnreg shares out what the launch allocated");
};

struct PrefillShared {
  unsigned long long full[2][8], empty[2][8];
};

// (chunk, KV head, block of packed rows); packed row r is query row r / group, head r % group.
struct PrefillItem {
  int span, kv_head, first_packed;
  int first_page, last_page;
};

template <typename Config>
struct PrefillKernel {
  static __device__ int Group(const PrefillAttentionParams& p) {
    return p.num_heads / p.kv.num_kv_heads;
  }
  static __device__ int SpanBlocks(const PrefillAttentionParams& p, int span) {
    return (p.spans[span].num_rows * Group(p) + Config::kBlockRows - 1) / Config::kBlockRows;
  }
  static __device__ int KeyBegin(const PrefillAttentionParams& p, int end) {
    return p.window > 0 ? max(end - p.window, 0) : 0;
  }

  // Item `index`; false past the last. The latest rows, which see most keys, come first.
  static __device__ bool Item(const PrefillAttentionParams& p, int index, PrefillItem& item) {
    for (int span = 0; span < p.num_spans; ++span) {
      const int blocks = SpanBlocks(p, span), items = blocks * p.kv.num_kv_heads;
      if (index >= items) {
        index -= items;
        continue;
      }
      item.span = span;
      item.kv_head = index / blocks;
      item.first_packed = (blocks - 1 - index % blocks) * Config::kBlockRows;
      const PrefillSpan& s = p.spans[span];
      const int first = item.first_packed / Group(p);
      const int last = min((item.first_packed + Config::kBlockRows - 1) / Group(p), s.num_rows - 1);
      item.first_page = KeyBegin(p, p.rows.key_ends[s.first_row + first]) / kPageTokens;
      item.last_page = (p.rows.key_ends[s.first_row + last] - 1) / kPageTokens;
      return true;
    }
    return false;
  }

  struct Ring {
    uint32_t stages, full, empty;
    int stage = 0;
    uint32_t phase = 0;
    __device__ uint32_t data() const { return stages + stage * Config::kTileBytes; }
    __device__ uint32_t full_barrier() const { return full + stage * 8; }
    __device__ uint32_t empty_barrier() const { return empty + stage * 8; }
    __device__ void Advance() {
      if (++stage == Config::kRingStages) stage = 0, phase ^= 1;
    }
    __device__ void WaitFull() const { MbarrierWait(full_barrier(), phase); }
    __device__ void Release() const {
      if (threadIdx.x % 128 == 0) MbarrierArrive(empty_barrier());
    }
  };

  // One thread. Tiles in the order K, V of each page.
  static __device__ void Produce(const PrefillAttentionParams& p, Ring ring, int half) {
    PrefillItem item;
    for (int index = static_cast<int>(blockIdx.x); Item(p, index, item);
         index += static_cast<int>(gridDim.x)) {
      const PrefillSpan& s = p.spans[item.span];
      const int32_t* table = p.rows.page_table != nullptr
                                 ? p.rows.page_table + int64_t{s.slot} * p.rows.table_stride
                                 : nullptr;
      for (int cell = item.first_page; cell <= item.last_page; ++cell) {
        const int page =
            table != nullptr ? table[cell] : s.place.scratch_page + cell - s.place.first_cell;
        const int64_t bytes = PageOffset(p.kv, page);
        int row = static_cast<int>(bytes / (2 * Config::kHeadDim)) + item.kv_head * 2 * kPageTokens;
        for (int part = 0; part < 2; ++part, row += kPageTokens) {
          MbarrierWait(ring.empty_barrier(), ring.phase ^ 1);
          MbarrierArriveExpect(ring.full_barrier(), Config::kTileBytes);
          TmaLoad3d(ring.data(), &p.kv_map, 0, row, half * 4, ring.full_barrier(), kEvictLast);
          ring.Advance();
        }
      }
    }
  }

  // A group's tile of Q: its 64 rows, or its half of the head.
  static __device__ void LoadQ(const PrefillAttentionParams& p, const PrefillItem& item,
                               uint32_t q_tile, int group) {
    constexpr int kChunks = Config::kColumns / 8;
    constexpr int kAhead = Config::kSplitsHead ? 1 : 4;  // loads under way; more would spill
    const PrefillSpan& s = p.spans[item.span];
    const int heads = Group(p), thread = threadIdx.x % 128;
#pragma unroll kAhead
    for (int i = thread; i < 64 * kChunks; i += 128) {
      const int r = i / kChunks, chunk = i % kChunks;
      const int packed = item.first_packed + r + (Config::kSplitsHead ? 0 : group * 64),
                row = packed / heads;
      uint4 v = make_uint4(0, 0, 0, 0);
      if (row < s.num_rows)
        v = *reinterpret_cast<const uint4*>(
            p.q + int64_t{s.first_row + row} * p.q_stride +
            int64_t{item.kv_head * heads + packed % heads} * Config::kHeadDim +
            (Config::kSplitsHead ? group * Config::kColumns : 0) + chunk * 8);
      asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(
                       q_tile + chunk / 8 * Config::kBlockBytes + Swizzle128(r, chunk % 8)),
                   "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                   : "memory");
    }
    FenceProxyAsync();
    NamedBarrier(1 + group, 128);
  }

  // A shared address that is the same in all lanes, which the compiler cannot know: descriptors
  // made of it stay in uniform registers.
  static __device__ uint32_t Uniform(uint32_t address) {
    return __shfl_sync(kFullWarp, address, 0);
  }

  static __device__ void Scores(float (&s)[32], uint32_t q_tile, uint32_t keys) {
    const uint64_t q = KMajorDescriptor(Uniform(q_tile)), k = KMajorDescriptor(Uniform(keys));
    WgmmaFence();
#pragma unroll
    for (int step = 0; step < Config::kColumns / 16; ++step) {
      const uint64_t offset = (step / 4 * Config::kBlockBytes + step % 4 * 32) / 16;
      Wgmma(s, q + offset, k + offset, step > 0);
    }
    WgmmaCommit();
  }
  static __device__ void AddValues(float (&o)[128], const uint32_t (&weights)[4][4],
                                   uint32_t values) {
    const uint64_t v = ColumnMajorDescriptor(Uniform(values), Config::kBlockBytes);
    WgmmaFence();
#pragma unroll
    for (int step = 0; step < kPageTokens / 16; ++step)
      WgmmaTransposed(o, weights[step], v + step * 2048 / 16, 1);
    WgmmaCommit();
  }

  // s becomes the sum of both groups' halves. exchange: this thread's place in group 0's half.
  static __device__ void Exchange(float (&s)[32], uint32_t exchange, int group) {
    constexpr uint32_t kHalf = 8 * 128 * 16;
    const uint32_t mine = exchange + static_cast<uint32_t>(group) * kHalf;
    NamedBarrier(3, Config::kConsumers);  // the other group has read the halves of the page before
#pragma unroll
    for (int i = 0; i < 8; ++i)
      StoreShared4(mine + i * 128 * 16, s[4 * i], s[4 * i + 1], s[4 * i + 2], s[4 * i + 3]);
    NamedBarrier(4, Config::kConsumers);
    const uint32_t other = exchange + static_cast<uint32_t>(1 - group) * kHalf;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float4 v = LoadShared4(other + i * 128 * 16);
      s[4 * i] += v.x, s[4 * i + 1] += v.y, s[4 * i + 2] += v.z, s[4 * i + 3] += v.w;
    }
  }

  struct Rows {
    int end[2];              // of the keys that rows lane/4 and lane/4 + 8 of the thread's warp see
    int all_begin, all_end;  // keys that all rows of the block see; pages inside need no mask
    float max[2], sum[2];
  };

  static __device__ Rows LoadRows(const PrefillAttentionParams& p, const PrefillItem& item,
                                  int group) {
    const PrefillSpan& s = p.spans[item.span];
    Rows rows;
    const int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int r = (Config::kSplitsHead ? 0 : group * 64) + warp * 16 + i * 8 + lane / 4;
      const int row = (item.first_packed + r) / Group(p);
      rows.end[i] = row < s.num_rows ? p.rows.key_ends[s.first_row + row] : 0;
      rows.max[i] = -INFINITY, rows.sum[i] = 0;
    }
    const int last = min((item.first_packed + Config::kBlockRows - 1) / Group(p), s.num_rows - 1);
    rows.all_end = p.rows.key_ends[s.first_row + item.first_packed / Group(p)];
    rows.all_begin = KeyBegin(p, p.rows.key_ends[s.first_row + last]);
    return rows;
  }

  // s to weights, in place; rows.max follows. `scale`: by what O and the sums must be multiplied.
  static __device__ void Softmax(const PrefillAttentionParams& p, float (&s)[32], Rows& rows,
                                 int page, float (&scale)[2]) {
    const int first_key = page * kPageTokens + threadIdx.x % 4 * 2;
    const bool masked =
        page * kPageTokens < rows.all_begin || (page + 1) * kPageTokens > rows.all_end;
    if (masked) {
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            const int key = first_key + n * 8 + j;
            const bool seen = key >= KeyBegin(p, rows.end[i]) && key < rows.end[i];
            s[4 * n + 2 * i + j] = seen ? s[4 * n + 2 * i + j] : -INFINITY;
          }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float largest = -INFINITY;
#pragma unroll
      for (int n = 0; n < 8; ++n)
        largest = fmaxf(largest, fmaxf(s[4 * n + 2 * i], s[4 * n + 2 * i + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, 2));
      largest = fmaxf(rows.max[i], ceilf(largest * kLog2E));  // as in decode.cuh
      const float base = largest == -INFINITY ? 0.0f : largest;
      scale[i] = Exp2(rows.max[i] - base);
      rows.max[i] = largest;
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int j = 0; j < 2; ++j)
          s[4 * n + 2 * i + j] = Exp2(fmaf(s[4 * n + 2 * i + j], kLog2E, -base));
    }
  }

  // Weights as the A operand of P V. The sums are of the rounded weights, so that rounding one
  // key's weight does not make all of them add up to more or less than 1.
  static __device__ void Pack(const float (&s)[32], uint32_t (&weights)[4][4], Rows& rows,
                              const float (&scale)[2]) {
    float sum[2] = {0, 0};
#pragma unroll
    for (int step = 0; step < 4; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        weights[step][i] = PackBf16(s[8 * step + 2 * i], s[8 * step + 2 * i + 1]);
        sum[i % 2] += LowHalf(weights[step][i]) + HighHalf(weights[step][i]);
      }
#pragma unroll
    for (int i = 0; i < 2; ++i) rows.sum[i] = rows.sum[i] * scale[i] + sum[i];
  }

  // Rows of V that no row of the block sees are zeroed: they may hold anything, and 0 * NaN is NaN.
  // Each group does it for itself, so that none waits for the other; both write the same.
  static __device__ void ZeroValues(uint32_t values, int begin, int end, int group) {
    constexpr int kChunks = Config::kColumns / 8;
    for (int i = static_cast<int>(threadIdx.x) % 128; i < kPageTokens * kChunks; i += 128) {
      const int key = i / kChunks, chunk = i % kChunks;
      if (key >= begin && key < end) continue;
      asm volatile("st.shared.v4.u32 [%0], {%1,%1,%1,%1};" ::"r"(
                       values + chunk / 8 * Config::kBlockBytes + Swizzle128(key, chunk % 8)),
                   "r"(0)
                   : "memory");
    }
    FenceProxyAsync();
    NamedBarrier(1 + group, 128);
  }
  // V of a page, ready to be multiplied. Which item it belongs to is worked out again where that is
  // needed: registers are worth more than the few instructions.
  static __device__ void WaitValues(const PrefillAttentionParams& p, int index, const Ring& ring,
                                    int page, bool at_edge) {
    ring.WaitFull();
    if (!at_edge) return;
    PrefillItem item;
    Item(p, index, item);
    const PrefillSpan& s = p.spans[item.span];
    const int first = item.first_packed / Group(p);
    const int last = min((item.first_packed + Config::kBlockRows - 1) / Group(p), s.num_rows - 1);
    const int begin = KeyBegin(p, p.rows.key_ends[s.first_row + first]) - page * kPageTokens;
    const int end = p.rows.key_ends[s.first_row + last] - page * kPageTokens;
    if (begin > 0 || end < kPageTokens)
      ZeroValues(ring.data(), begin, end, static_cast<int>(threadIdx.x) / 128);
  }

  // Of a row whose sum four threads share; a row without keys gives zeros.
  static __device__ float Normaliser(float sum) {
    sum += __shfl_xor_sync(kFullWarp, sum, 1);
    sum += __shfl_xor_sync(kFullWarp, sum, 2);
    return sum > 0 ? 1.0f / sum : (sum == 0 ? 0.0f : sum);
  }

  static __device__ void WriteOut(const PrefillAttentionParams& p, const PrefillItem& item,
                                  const Rows& rows, const float (&o)[128], int group) {
    const PrefillSpan& s = p.spans[item.span];
    const int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32, heads = Group(p);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float factor = Normaliser(rows.sum[i]);
      const int packed =
          item.first_packed + (Config::kSplitsHead ? 0 : group * 64) + warp * 16 + i * 8 + lane / 4;
      if (packed / heads >= s.num_rows) continue;
      Bf16* out = p.out + int64_t{s.first_row + packed / heads} * p.out_stride +
                  int64_t{item.kv_head * heads + packed % heads} * Config::kHeadDim +
                  (Config::kSplitsHead ? group * Config::kColumns : 0) + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < 32; ++n)
        *reinterpret_cast<uint32_t*>(out + n * 8) =
            PackBf16(o[4 * n + 2 * i] * factor, o[4 * n + 2 * i + 1] * factor);
    }
  }

  static __device__ void Rescale(float (&o)[128], const float (&scale)[2]) {
#pragma unroll
    for (int n = 0; n < 32; ++n) {
      o[4 * n] *= scale[0], o[4 * n + 1] *= scale[0];
      o[4 * n + 2] *= scale[1], o[4 * n + 3] *= scale[1];
    }
  }

  // Groups with rows of their own issue their products in turns: while one's run, the other has its
  // softmax.
  static __device__ void TakeTurn(int group) {
    if constexpr (!Config::kSplitsHead) NamedBarrier(8 + group, Config::kConsumers);
  }
  static __device__ void PassTurn(int group) {
    if constexpr (!Config::kSplitsHead) NamedBarrierArrive(9 - group, Config::kConsumers);
  }

  static __device__ void Consume(const PrefillAttentionParams& p, Ring ring, uint32_t q_tile,
                                 uint32_t exchange, int group) {
    PrefillItem item;
    if (group == 1) PassTurn(1);  // group 0 begins
    for (int index = static_cast<int>(blockIdx.x); Item(p, index, item);
         index += static_cast<int>(gridDim.x)) {
      LoadQ(p, item, q_tile, group);
      Rows rows = LoadRows(p, item, group);
      const int first_page = item.first_page, last_page = item.last_page;
      float s[32], o[128] = {}, scale[2];
      uint32_t weights[4][4];
      ring.WaitFull();
      Scores(s, q_tile, ring.data());
      WgmmaWait<0>();
      ring.Release();
      ring.Advance();
      if constexpr (Config::kSplitsHead) Exchange(s, exchange, group);
      Softmax(p, s, rows, first_page, scale);
      Pack(s, weights, rows, scale);
      for (int page = first_page + 1; page <= last_page; ++page) {
        Ring keys = ring;
        keys.Advance();
        keys.WaitFull();
        TakeTurn(group);
        Scores(s, q_tile, keys.data());
        WaitValues(p, index, ring, page - 1, page - 1 == first_page);
        AddValues(o, weights, ring.data());
        PassTurn(group);
        WgmmaWait<1>();
        keys.Release();
        if constexpr (Config::kSplitsHead) Exchange(s, exchange, group);
        Softmax(p, s, rows, page, scale);
        WgmmaWait<0>();
        ring.Release();
        // Mostly no row has a new maximum.
        if (__any_sync(kFullWarp, scale[0] != 1.0f || scale[1] != 1.0f)) Rescale(o, scale);
        Pack(s, weights, rows, scale);
        ring.Advance();
        ring.Advance();
      }
      WaitValues(p, index, ring, last_page, true);
      AddValues(o, weights, ring.data());
      WgmmaWait<0>();
      ring.Release();
      ring.Advance();
      Item(p, index, item);
      WriteOut(p, item, rows, o, group);
    }
  }
};

template <typename Config>
__global__ void __launch_bounds__(Config::kThreads, 1)
    PrefillAttentionKernel(const __grid_constant__ PrefillAttentionParams p) {
  extern __shared__ char dynamic_shared[];
  __shared__ PrefillShared shared;
  using Kernel = PrefillKernel<Config>;
  const uint32_t base = (SharedAddress(dynamic_shared) + 1023) / 1024 * 1024;
  if (threadIdx.x == 0) {
    PrefetchTensorMap(&p.kv_map);
    for (int r = 0; r < Config::kRings; ++r)
      for (int i = 0; i < Config::kRingStages; ++i) {
        MbarrierInit(SharedAddress(&shared.full[r][i]), 1);
        MbarrierInit(SharedAddress(&shared.empty[r][i]), Config::kReaders);
      }
    MbarrierInitFence();
  }
  GridDependencyLaunch();
  GridDependencyWait();
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x) / 128;
  const auto ring_of = [&](int r) {
    return
        typename Kernel::Ring{base + Config::kStages + r * Config::kRingStages * Config::kTileBytes,
                              SharedAddress(shared.full[r]), SharedAddress(shared.empty[r])};
  };
  if (group == 2) {
    SetMaxRegistersDown<Config::kProducerRegisters>();
    const int warp = static_cast<int>(threadIdx.x) / 32 - 8;
    if (warp < Config::kRings && threadIdx.x % 32 == 0) Kernel::Produce(p, ring_of(warp), warp);
  } else {
    SetMaxRegistersUp<Config::kConsumerRegisters>();
    Kernel::Consume(p, ring_of(Config::kRings == 2 ? group : 0),
                    base + Config::kQ + group * Config::kTileBytes,
                    base + Config::kExchange + threadIdx.x % 128 * 16, group);
  }
}

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_ATTENTION_PREFILL_CUH_
