// The decode attention kernel. One producer warp keeps a ring of 32 KB stages full by TMA; eight
// consumer warps take a page of 64 keys at a time, or two: S = Q K^T with eight keys of each a
// warp, softmax over the pages, O += P V with Dh/8 columns a warp.
#ifndef LAPIDARY_KERNELS_ATTENTION_DECODE_CUH_
#define LAPIDARY_KERNELS_ATTENTION_DECODE_CUH_

#include <cstddef>
#include <type_traits>

#include "kernels/attention/decode.h"
#include "kernels/attention/decode_schedule.cuh"
#include "kernels/attention/page.cuh"
#include "kernels/common/math.cuh"
#include "kernels/common/ptx.cuh"

namespace lapidary::kernels {

// Two parts of an item become one: `left` then `right`. Written with fixed roundings, because every
// place that merges must give the same bits.
struct MergeScales {
  float max, left, right;
};
__device__ __forceinline__ MergeScales Scales(float left_max, float right_max) {
  MergeScales scales;
  scales.max = fmaxf(left_max, right_max);
  const float base = scales.max == -INFINITY ? 0.0f : scales.max;
  scales.left = Exp2(left_max - base);
  scales.right = Exp2(right_max - base);
  return scales;
}
__device__ __forceinline__ float Merged(const MergeScales& scales, float left, float right) {
  return __fmaf_rn(left, scales.left, __fmul_rn(right, scales.right));
}
// A row without keys gives zeros.
__device__ __forceinline__ float Normaliser(float sum) {
  return sum > 0 ? 1.0f / sum : (sum == 0 ? 0.0f : sum);
}

// A unit of an item in scratch: O [rows,Dh] and (max, sum) [rows], rows packed.
struct Partial {
  float *o, *max_sum;
};
// Of a block of the persistent kernel.
__device__ __forceinline__ Partial BlockPartial(const DecodeAttentionParams& p, int block, int unit,
                                                int head_dim) {
  float* o = p.partials + (int64_t{block} * p.block_units + unit) * p.partial_rows * (head_dim + 2);
  return {o, o + p.partial_rows * head_dim};
}

// Four columns of packed row r of an item from its units, `unit(i)` the Partial of each, left to
// right.
template <int kHeadDim, typename Unit>
__device__ __forceinline__ float4 MergeUnits(int num_units, int r, int column, Unit unit) {
  constexpr int kAhead = 8;
  float4 o[kAhead], merged = make_float4(0, 0, 0, 0);
  float2 max_sum[kAhead];
  float max = -INFINITY, sum = 0;
  for (int first = 0; first < num_units; first += kAhead) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= num_units) break;
      const Partial from = unit(first + i);
      o[i] = *reinterpret_cast<const float4*>(from.o + r * kHeadDim + column);
      max_sum[i] = *reinterpret_cast<const float2*>(from.max_sum + 2 * r);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= num_units) break;
      if (first + i == 0) {
        merged = o[i], max = max_sum[i].x, sum = max_sum[i].y;
        continue;
      }
      const MergeScales scales = Scales(max, max_sum[i].x);
      max = scales.max;
      sum = Merged(scales, sum, max_sum[i].y);
      merged = make_float4(Merged(scales, merged.x, o[i].x), Merged(scales, merged.y, o[i].y),
                           Merged(scales, merged.z, o[i].z), Merged(scales, merged.w, o[i].w));
    }
  }
  const float factor = Normaliser(sum);
  return make_float4(merged.x * factor, merged.y * factor, merged.z * factor, merged.w * factor);
}
// Where column 0 of packed row `packed` of a sequence goes.
__device__ __forceinline__ Bf16* OutOf(const DecodeAttentionParams& p, int first_row, int packed,
                                       int kv_head, int head_dim) {
  const int group = p.num_heads / p.kv.num_kv_heads;
  return p.out + int64_t{first_row + packed / group} * p.out_stride +
         int64_t{kv_head * group + packed % group} * head_dim;
}
__device__ __forceinline__ void StoreFour(Bf16* out, const float4& v) {
  *reinterpret_cast<uint2*>(out) = make_uint2(PackBf16(v.x, v.y), PackBf16(v.z, v.w));
}

template <typename Config>
struct DecodeKernel {
  static constexpr int kRowTiles = Config::kRowTiles, kColumnTiles = Config::kColumnTiles,
                       kPages = Config::kPages;
  using Shared = DecodeShared<Config>;

  // Rows lane/4 and lane/4 + 8 of each row tile: what a thread of an MMA holds.
  struct State {
    float max[kRowTiles][2], sum[kRowTiles][2];
    float o[kRowTiles][kColumnTiles][4];

    __device__ void Clear() {
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int i = 0; i < 2; ++i) max[m][i] = -INFINITY, sum[m][i] = 0;
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) o[m][n][i] = 0;
      }
    }
    __device__ void Merge(const State& right) {
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const MergeScales scales = Scales(max[m][i], right.max[m][i]);
          max[m][i] = scales.max;
          sum[m][i] = Merged(scales, sum[m][i], right.sum[m][i]);
#pragma unroll
          for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
            for (int j = 2 * i; j < 2 * i + 2; ++j)
              o[m][n][j] = Merged(scales, o[m][n][j], right.o[m][n][j]);
        }
    }
  };

  // An item's state so far, kept in shared memory: a column of floats a thread.
  struct SharedState {
    float* o;
    float max[kRowTiles][2], sum[kRowTiles][2];

    // This becomes itself, then `unit`; with `first`, only `unit`. With `last` the result is in
    // `unit` too.
    __device__ void Merge(State& unit, bool first, bool last) {
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const MergeScales scales = Scales(max[m][i], unit.max[m][i]);
          max[m][i] = first ? unit.max[m][i] : scales.max;
          sum[m][i] = first ? unit.sum[m][i] : Merged(scales, sum[m][i], unit.sum[m][i]);
#pragma unroll
          for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
            for (int j = 2 * i; j < 2 * i + 2; ++j) {
              float& mine = o[((m * kColumnTiles + n) * 4 + j) * Config::kConsumers];
              const float value = first ? unit.o[m][n][j] : Merged(scales, mine, unit.o[m][n][j]);
              if (last)
                unit.o[m][n][j] = value;
              else
                mine = value;
            }
          if (last) unit.sum[m][i] = sum[m][i];
        }
    }
  };

  struct Ring {
    uint32_t base;  // of the block's shared memory
    int stage = 0;
    uint32_t phase = 0;

    __device__ uint32_t data() const { return base + stage * Config::kStageBytes; }
    __device__ uint32_t full_barrier() const {
      return base + Config::kSmall + offsetof(Shared, full) + stage * 8;
    }
    __device__ uint32_t empty_barrier() const {
      return base + Config::kSmall + offsetof(Shared, empty) + stage * 8;
    }
    __device__ void Advance() {
      if (++stage == Config::kStages) stage = 0, phase ^= 1;
    }
  };

  template <typename Walk>
  static __device__ void Produce(const DecodeAttentionParams& p, Walk walk, Ring ring) {
    const int lane = threadIdx.x % 32;
    int loaded_sequence = -1, loaded_item = -1;
    ItemKeys keys;
    const int32_t* table = nullptr;
    for (; !walk.Done(); walk.Next()) {
      if (walk.sequence != loaded_sequence || walk.item != loaded_item) {
        keys = walk.Keys();
        table = p.rows.page_table + int64_t{p.rows.slots[walk.s.first_row]} * p.rows.table_stride;
        loaded_sequence = walk.sequence, loaded_item = walk.item;
      }
      const UnitRange range = RangeOf<Config>(walk, keys);
      // Up to 32 pages at a time, of which the lanes know where they lie.
      for (int base = range.first_page; base <= range.last_page; base += 32 - base % kPages) {
        const int my_page = base + lane <= range.last_page ? table[base + lane] : 0;
        const int count = min(32 - base % kPages, range.last_page - base + 1);
        for (int i = 0; i < count; i += kPages - (base + i) % kPages) {
          // The keys of all pages, then their values; or both at once.
          for (int half = 0; half < (Config::kFolded ? 1 : 2); ++half)
            for (int q = (base + i) % kPages, j = i; q < kPages && j < count; ++q, ++j)
              LoadTile(p, __shfl_sync(kFullWarp, my_page, j), walk.kv_head(), half,
                       InPage(keys, base + j), ring);
        }
      }
    }
  }
  // Of the keys of an item, those in a page.
  static __device__ ItemKeys InPage(const ItemKeys& keys, int page) {
    return {max(keys.begin - page * kPageTokens, 0),
            min(keys.end - page * kPageTokens, kPageTokens)};
  }
  // The keys of a page, or its values; or both. Whole groups of 16 keys that no row sees are left
  // out: what the stage held before stands there then, and counts for nothing.
  static __device__ void LoadTile(const DecodeAttentionParams& p, int page, int kv_head, int half,
                                  const ItemKeys& seen, Ring& ring) {
    const int64_t bytes = PageOffset(p.kv, page) + kv_head * KvHeadBytes(p.kv);
    const int first =
        static_cast<int>(bytes / (Config::kFolded ? kFoldedUnitBytes : 2 * Config::kHeadDim)) +
        half * kPageTokens;
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int key = 0; key < kPageTokens; key += Config::kStageKeys) {
      MbarrierWait(ring.empty_barrier(), ring.phase ^ 1);
      const int begin = max(seen.begin - key, 0) / kKeyGroup,
                end = (min(seen.end - key, Config::kStageKeys) + kKeyGroup - 1) / kKeyGroup;
      const int groups = max(end - begin, 0);
      if (lane == 0)
        MbarrierArriveExpect(ring.full_barrier(), groups * (kKeyGroup * Config::kKeyBytes));
      if (groups == Config::kStageKeys / kKeyGroup) {
        if (lane == 0) {
          if constexpr (Config::kFolded)
            TmaLoad4d(ring.data(), &p.kv_map, 0, key, 0, first, ring.full_barrier(), kEvictFirst);
          else
            TmaLoad3d(ring.data(), &p.kv_map, 0, first + key, 0, ring.full_barrier(), kEvictFirst);
        }
      } else if constexpr (Config::kStageKeys > kKeyGroup) {
        __syncwarp();  // the bytes are announced before any arrives
        constexpr int kBlocks = Config::kHeadDim / 64;
#pragma unroll 1
        for (int i = lane; i < groups * kBlocks; i += 32) {
          const int from = (begin + i / kBlocks) * kKeyGroup, block = i % kBlocks;
          TmaLoad3d(ring.data() + (block * Config::kStageKeys + from) * 128, &p.group_map, 0,
                    first + key + from, block, ring.full_barrier(), kEvictFirst);
        }
      }
      __syncwarp();
      ring.Advance();
    }
  }

  static __device__ void ConsumerBarrier() { NamedBarrier(1, Config::kConsumers); }

  // A thread's part of an item's Q, on its way to shared memory. Packed row r of a tile is query
  // row r / group, head r % group of the KV head.
  static constexpr int kChunks = Config::kHeadDim / 8,
                       kQueryParts = Config::kRows * kChunks / Config::kConsumers;
  using Query = uint4[kQueryParts];

  static __device__ uint4 FetchQ(const DecodeAttentionParams& p, const QueryTile& tile, int part) {
    const int i = part * Config::kConsumers + static_cast<int>(threadIdx.x);
    const int r = i / kChunks, chunk = i % kChunks, group = p.num_heads / p.kv.num_kv_heads;
    const int from = Config::kFolded ? FoldedKeyBlock(chunk / 8) * 8 + chunk % 8 : chunk;
    const int packed = tile.tile * Config::kRows + r, row = packed / group;
    if (row >= tile.num_rows) return make_uint4(0, 0, 0, 0);
    return *reinterpret_cast<const uint4*>(
        p.q + int64_t{tile.first_row + row} * p.q_stride +
        int64_t{tile.kv_head * group + packed % group} * Config::kHeadDim + from * 8);
  }
  static __device__ void FetchQ(const DecodeAttentionParams& p, const QueryTile& tile, Query& q) {
#pragma unroll
    for (int part = 0; part < kQueryParts; ++part) q[part] = FetchQ(p, tile, part);
  }
  static __device__ void StoreQ(const uint4& v, uint32_t q_shared, int part) {
    const int i = part * Config::kConsumers + static_cast<int>(threadIdx.x);
    const int r = i / kChunks, chunk = i % kChunks;
    const uint32_t address =
        q_shared + (chunk / 8) * (Config::kRows * 128) + Swizzle128(r, chunk % 8);
    asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(v.x), "r"(v.y),
                 "r"(v.z), "r"(v.w)
                 : "memory");
  }
  static __device__ void StoreQ(const Query& q, uint32_t q_shared) {
#pragma unroll
    for (int part = 0; part < kQueryParts; ++part) StoreQ(q[part], q_shared, part);
  }

  // Offset of 16 bytes in a stage: [column block of 64][key][64 columns].
  static __device__ uint32_t StageOffset(int key, int chunk) {
    return static_cast<uint32_t>(chunk / 8 * (Config::kStageKeys * 128)) +
           Swizzle128(key, chunk % 8);
  }

  using Scores = float[kRowTiles][kPages][4];

  // Scores of this warp's eight keys of each page, whose tiles lie at `keys`, in units of log2.
  static __device__ void Multiply(Scores& s, uint32_t q_shared, const uint32_t (&keys)[kPages],
                                  int warp) {
    const int lane = threadIdx.x % 32;
    const int key = warp * 8 % Config::kStageKeys + lane % 8;
    const int q_row = lane % 16, q_chunk = lane / 16;
    float sums[kRowTiles][kPages][2][4] = {};  // two chains: an MMA waits for the one before it
#pragma unroll
    for (int block = 0; block < Config::kHeadDim / 32; ++block) {
      uint32_t k[kPages][4];
#pragma unroll
      for (int q = 0; q < kPages; ++q)
        LoadMatrix4(k[q], keys[q] + StageOffset(key, block * 4 + lane / 8));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int chunk = block * 4 + half * 2 + q_chunk;
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          uint32_t query[4];
          LoadMatrix4(query, q_shared + chunk / 8 * (Config::kRows * 128) +
                                 Swizzle128(m * 16 + q_row, chunk % 8));
#pragma unroll
          for (int q = 0; q < kPages; ++q)
            Mma16816(sums[m][q][half], query, k[q][2 * half], k[q][2 * half + 1]);
        }
      }
    }
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int q = 0; q < kPages; ++q)
#pragma unroll
        for (int i = 0; i < 4; ++i) s[m][q][i] = (sums[m][q][0][i] + sums[m][q][1][i]) * kLog2E;
  }

  static __device__ void ReleaseStage(Ring& ring) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) MbarrierArrive(ring.empty_barrier());
    ring.Advance();
  }

  // O += P V for this warp's columns; gives the stages back.
  static __device__ void AddValues(State& state, uint32_t p_shared, Ring& ring, int warp) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int step = 0; step < kPageTokens / 16; ++step) {
      if (step * 16 % Config::kStageKeys == 0 && step > 0) ReleaseStage(ring);
      uint32_t weights[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
        LoadMatrix4(weights[m], p_shared + Swizzle128(m * 16 + lane % 16, step * 2 + lane / 16));
      const int key = step * 16 % Config::kStageKeys + lane % 16;
#pragma unroll
      for (int n = 0; n < kColumnTiles; n += 2) {
        uint32_t v[4];
        const int chunk = Config::kValueChunk + warp * kColumnTiles + n + lane / 16;
        LoadMatrix4Transposed(v, ring.data() + StageOffset(key, chunk));
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          Mma16816(state.o[m][n], weights[m], v[0], v[1]);
          Mma16816(state.o[m][n + 1], weights[m], v[2], v[3]);
        }
      }
    }
    ReleaseStage(ring);
  }

  // Rows of V outside [begin, end) of the page are zeroed: they may hold anything, and 0 * NaN is
  // NaN.
  static __device__ void ZeroValues(Ring ring, int begin, int end) {
    constexpr int kChunks = Config::kHeadDim / 8;
    for (int part = 0; part < Config::kTileStages; ++part) {
      for (int i = static_cast<int>(threadIdx.x); i < Config::kStageKeys * kChunks;
           i += Config::kConsumers) {
        const int key = i / kChunks, in_page = part * Config::kStageKeys + key;
        if (in_page >= begin && in_page < end) continue;
        asm volatile("st.shared.v4.u32 [%0], {%1,%1,%1,%1};" ::"r"(
                         ring.data() + StageOffset(key, Config::kValueChunk + i % kChunks)),
                     "r"(0)
                     : "memory");
      }
      ring.Advance();
    }
    FenceProxyAsync();  // before the stage goes back to TMA
  }

  static __device__ void SkipTile(Ring& ring) {
    for (int part = 0; part < Config::kTileStages; ++part) ring.Advance();
  }
  static __device__ void ReleaseTile(Ring& ring) {
    for (int part = 0; part < Config::kTileStages; ++part) ReleaseStage(ring);
  }
  static __device__ void WaitTile(Ring ring) {
    for (int part = 0; part < Config::kTileStages; ++part) {
      MbarrierWait(ring.full_barrier(), ring.phase);
      ring.Advance();
    }
  }

  // Softmax of the pages: state.max, state.sum and state.o move to the new maximum, P goes to
  // shared memory. state.sum is this thread's share of the row. Between its barrier and the next
  // lies all that the warps exchange. Maxima are rounded up to whole powers of two: what a weight
  // is rounded to does not depend on the maximum then, and moving to a new one rounds nothing.
  static __device__ void Softmax(State& state, const Scores& s, Shared& shared, uint32_t p_shared,
                                 int warp) {
    const int lane = threadIdx.x % 32, row = lane / 4;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float largest = -INFINITY;
#pragma unroll
        for (int q = 0; q < kPages; ++q)
          largest = fmaxf(largest, fmaxf(s[m][q][2 * i], s[m][q][2 * i + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, 2));
        if (lane % 4 == 0)
          reinterpret_cast<float*>(shared.max[m * 16 + i * 8 + row])[warp] = largest;
      }
    ConsumerBarrier();
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int r = m * 16 + i * 8 + row;
        float largest = state.max[m][i];
#pragma unroll
        for (int w = 0; w < Config::kConsumerWarps / 4; ++w) {
          const float4 of = shared.max[r][w];
          largest = fmaxf(largest, ceilf(fmaxf(fmaxf(of.x, of.y), fmaxf(of.z, of.w))));
        }
        const float base = largest == -INFINITY ? 0.0f : largest;
        const float scale = Exp2(state.max[m][i] - base);
        state.max[m][i] = largest;
        state.sum[m][i] *= scale;
#pragma unroll
        for (int q = 0; q < kPages; ++q) {
          const uint32_t pair =
              PackBf16(Exp2(s[m][q][2 * i] - base), Exp2(s[m][q][2 * i + 1] - base));
          // The sum is of the rounded weights, so that rounding one key's weight does not make all
          // of them add up to more or less than 1.
          state.sum[m][i] += LowHalf(pair) + HighHalf(pair);
          asm volatile("st.shared.u32 [%0], %1;" ::"r"(p_shared + q * Config::kPBytes +
                                                       Swizzle128(r, warp) + lane % 4 * 4),
                       "r"(pair)
                       : "memory");
        }
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n)
          state.o[m][n][2 * i] *= scale, state.o[m][n][2 * i + 1] *= scale;
      }
  }

  // state.sum from a thread's share to the row's sum, in one order.
  static __device__ void SumRows(State& state, Shared& shared, int warp) {
    const int lane = threadIdx.x % 32, row = lane / 4;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float sum = state.sum[m][i];
        sum += __shfl_xor_sync(kFullWarp, sum, 1);
        sum += __shfl_xor_sync(kFullWarp, sum, 2);
        if (lane % 4 == 0) reinterpret_cast<float*>(shared.sum[m * 16 + i * 8 + row])[warp] = sum;
      }
    ConsumerBarrier();
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < Config::kConsumerWarps / 4; ++w) {
          const float4 of = shared.sum[m * 16 + i * 8 + row][w];
          sum = sum + of.x + of.y + of.z + of.w;
        }
        state.sum[m][i] = sum;
      }
    ConsumerBarrier();  // a unit without pages would overwrite what others still read
  }

  // Where each packed row's keys end; all consumers see it after a barrier.
  template <typename Walk>
  static __device__ void LoadEnds(const DecodeAttentionParams& p, const Walk& walk,
                                  Shared& shared) {
    if (threadIdx.x >= Config::kRows) return;
    const int group = p.num_heads / p.kv.num_kv_heads;
    const int row = (walk.tile() * Config::kRows + static_cast<int>(threadIdx.x)) / group;
    shared.ends[threadIdx.x] = row < walk.s.num_rows ? walk.key_end(walk.s.first_row + row) : 0;
  }

  // Of the pages from `first` on, those in the unit: how many, and how many come before them.
  struct Present {
    int skipped, count;
  };
  static __device__ Present PresentOf(const UnitRange& range, int first) {
    if constexpr (kPages == 1) return {0, 1};
    const int skipped = max(range.first_page - first, 0);
    return {skipped, min(range.last_page - first + 1, kPages) - skipped};
  }

  template <typename Walk>
  static __device__ void RunUnit(const Walk& walk, const ItemKeys& item_keys, State& state,
                                 Ring& ring, Shared& shared, uint32_t q_shared, uint32_t p_shared) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const UnitRange range = RangeOf<Config>(walk, item_keys);
    state.Clear();
    const bool empty = range.last_page < range.first_page;
    for (int first = empty ? range.first_page : range.first_page / kPages * kPages;
         first <= range.last_page; first += kPages) {
      const Present present = PresentOf(range, first);
      // A page that is not in the unit shows another one's keys; they are masked.
      uint32_t keys[kPages];
      Ring tile = ring;
#pragma unroll
      for (int q = 0; q < kPages; ++q) {
        if (q < present.count) {
          WaitTile(tile);
          Ring mine = tile;
          for (int part = 0; part < warp * 8 / Config::kStageKeys; ++part) mine.Advance();
          keys[q] = mine.data();
          SkipTile(tile);
        } else {
          keys[q] = keys[0];
        }
      }
      if (kPages == 2 && present.skipped > 0) keys[kPages - 1] = keys[0];
      Scores s;
      // Where registers are scarce, addresses of Q are worked out anew rather than kept.
      if constexpr (kRowTiles == 2 && kPages == 2) asm volatile("" : "+r"(q_shared));
      Multiply(s, q_shared, keys, warp);
      if constexpr (!Config::kFolded)  // folded, they are values too
        for (int q = 0; q < present.count; ++q) ReleaseTile(ring);
#pragma unroll
      for (int q = 0; q < kPages; ++q) {
        const int position = (first + q) * kPageTokens + warp * 8 + lane % 4 * 2;
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int key = position + i % 2;
            const int end = shared.ends[m * 16 + i / 2 * 8 + lane / 4];
            const bool begun = Config::kFolded || key >= KeyBegin(end, walk.p.window);
            if (!begun || key >= end) s[m][q][i] = -INFINITY;
          }
      }
      Softmax(state, s, shared, p_shared, warp);
      tile = ring;
      for (int q = 0; q < present.count; ++q) {
        if constexpr (!Config::kFolded) WaitTile(tile);
        const int page = (first + present.skipped + q) * kPageTokens;
        const int begin = Config::kFolded ? 0 : item_keys.begin - page, end = item_keys.end - page;
        if (begin > 0 || end < kPageTokens) ZeroValues(tile, begin, end);
        SkipTile(tile);
      }
      ConsumerBarrier();
      for (int q = 0; q < present.count; ++q)
        AddValues(state, p_shared + (present.skipped + q) * Config::kPBytes, ring, warp);
    }
    SumRows(state, shared, warp);
  }

  // Calls body(m, i, n, float2& o) for each pair of neighbouring columns of valid rows, after
  // pointing at (row, column).
  template <typename Body>
  static __device__ void ForEachPair(State& state, int num_rows, Body body) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    static_assert(!Config::kFolded || Config::kColumns == 64, "a warp has one block of columns");
    const int first_column = (Config::kFolded ? FoldedValueBlock(warp) : warp) * Config::kColumns;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int r = m * 16 + i * 8 + lane / 4;
        if (r >= num_rows) continue;
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n)
          body(r, first_column + n * 8 + lane % 4 * 2, state.sum[m][i], state.o[m][n][2 * i],
               state.o[m][n][2 * i + 1]);
      }
  }

  template <typename Walk>
  static __device__ int TileRows(const DecodeAttentionParams& p, const Walk& walk) {
    const int group = p.num_heads / p.kv.num_kv_heads;
    return min(Config::kRows, walk.s.num_rows * group - walk.tile() * Config::kRows);
  }

  template <typename Walk>
  static __device__ void WriteOut(const DecodeAttentionParams& p, const Walk& walk, State& state) {
    ForEachPair(state, TileRows(p, walk), [&](int r, int column, float sum, float low, float high) {
      Bf16* out = OutOf(p, walk.s.first_row, walk.tile() * Config::kRows + r, walk.kv_head(),
                        Config::kHeadDim) +
                  column;
      const float factor = Normaliser(sum);
      *reinterpret_cast<uint32_t*>(out) = PackBf16(low * factor, high * factor);
    });
  }

  // A unit in scratch.
  static __device__ void WritePartial(const Partial& to, int num_rows, State& state) {
    const int lane = threadIdx.x % 32;
    ForEachPair(state, num_rows, [&](int r, int column, float, float low, float high) {
      *reinterpret_cast<float2*>(to.o + r * Config::kHeadDim + column) = make_float2(low, high);
    });
    if (threadIdx.x < 32 && lane % 4 == 0) {
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int r = m * 16 + i * 8 + lane / 4;
          if (r < num_rows)
            *reinterpret_cast<float2*>(to.max_sum + 2 * r) =
                make_float2(state.max[m][i], state.sum[m][i]);
        }
    }
  }

  template <typename Walk>
  static __device__ DecodeBorder TailBorder(const DecodeAttentionParams& p, const Walk& walk) {
    DecodeBorder border;
    border.tail_splits = walk.s.num_splits;
    border.first_row = walk.s.first_row;
    border.first_packed = walk.tile() * Config::kRows;
    border.num_packed = TileRows(p, walk);
    border.kv_head = walk.kv_head();
    return border;
  }

  static __device__ void Consume(const DecodeAttentionParams& p, DecodeWalk<Config> walk, Ring ring,
                                 Shared& shared, float* merged_o, uint32_t q_shared,
                                 uint32_t p_shared) {
    bool loaded = false;
    int num_written = 0, head_units = -1;
    DecodeBorder& border = p.borders[blockIdx.x];
    ItemKeys keys;
    State unit;
    std::conditional_t<Config::kMergesInRegisters, State, SharedState> merged;
    if constexpr (!Config::kMergesInRegisters) merged.o = merged_o + threadIdx.x;
    while (!walk.Done()) {
      if (!loaded) {
        ConsumerBarrier();  // the previous item's Q is still being read
        const QueryTile tile{walk.s.first_row, walk.s.num_rows, walk.kv_head(), walk.tile()};
        for (int part = 0; part < kQueryParts; ++part)
          StoreQ(FetchQ(p, tile, part), q_shared, part);
        LoadEnds(p, walk, shared);
        keys = walk.Keys();
        // Here only so that it takes no registers while Q is loaded.
        if constexpr (Config::kMergesInRegisters) merged.Clear();
        ConsumerBarrier();
      }
      RunUnit(walk, keys, unit, ring, shared, q_shared, p_shared);
      const bool first = walk.split == 0, last = walk.split + 1 == walk.s.num_splits;
      if (!walk.OwnsItem()) {
        if (first) {
          if (threadIdx.x == 0) border = TailBorder(p, walk);
          head_units = num_written;
        }
        if (num_written >= p.block_units) __trap();  // the scratch was sized for less
        WritePartial(BlockPartial(p, static_cast<int>(blockIdx.x), num_written++, Config::kHeadDim),
                     TileRows(p, walk), unit);
      } else if (Config::kMergesInRegisters || (first && last)) {
        if constexpr (Config::kMergesInRegisters) {
          if (first)
            merged = unit;
          else
            merged.Merge(unit);
          if (last) WriteOut(p, walk, merged);
        } else {
          WriteOut(p, walk, unit);
        }
      } else if constexpr (!Config::kMergesInRegisters) {
        merged.Merge(unit, first, last);
        if (last) WriteOut(p, walk, unit);
      }
      walk.Next();
      loaded = walk.split != 0;
    }
    if (threadIdx.x != 0) return;
    if (head_units < 0) {
      border.tail_splits = 0;
      head_units = num_written;
    }
    border.head_units = head_units;
    border.tail_units = num_written - head_units;
  }
};

// Where the units of an item lie in scratch, in their order: the units of the block it began in,
// then those that the blocks behind it left. All threads of the block call.
constexpr int kCombineThreads = 128;
__device__ __forceinline__ void ListUnits(const DecodeAttentionParams& p,
                                          const DecodeBorder& border, int32_t* units) {
  __shared__ int warp_units[kCombineThreads / 32];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  for (int i = thread; i < border.tail_units; i += kCombineThreads)
    units[i] = static_cast<int>(blockIdx.x) * p.block_units + border.head_units + i;
  int found = border.tail_units;
  for (int base = static_cast<int>(blockIdx.x) + 1;
       base < static_cast<int>(gridDim.x) && found < border.tail_splits; base += kCombineThreads) {
    const int block = base + thread;
    const int mine = block < static_cast<int>(gridDim.x) ? p.borders[block].head_units : 0;
    int place = mine;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const int below = __shfl_up_sync(kFullWarp, place, offset);
      if (lane >= offset) place += below;
    }
    if (lane == 31) warp_units[warp] = place;
    __syncthreads();
    place += found - mine;
#pragma unroll
    for (int w = 0; w < kCombineThreads / 32; ++w) {
      if (w < warp) place += warp_units[w];
      found += warp_units[w];
    }
    for (int i = 0; i < mine && place + i < border.tail_splits; ++i)
      units[place + i] = block * p.block_units + i;
    __syncthreads();
  }
  __syncthreads();
}

// Merges the items that lie in several blocks: block x takes the item that leaves block x of the
// kernel before, block y a part of its columns.
template <int kHeadDim>
__global__ void __launch_bounds__(kCombineThreads)
    DecodeCombineKernel(const __grid_constant__ DecodeAttentionParams p) {
  constexpr int kVectors = kHeadDim / 4;
  __shared__ int32_t units[kMaxItemUnits];
  GridDependencyLaunch();
  GridDependencyWait();
  const DecodeBorder border = p.borders[blockIdx.x];
  if (border.tail_splits == 0) return;
  ListUnits(p, border, units);
  const int index = static_cast<int>(blockIdx.y * kCombineThreads + threadIdx.x);
  const int r = index / kVectors, column = index % kVectors * 4;
  if (r >= border.num_packed) return;
  const float4 o = MergeUnits<kHeadDim>(
      border.tail_splits, r, column, [&](int i) { return BlockPartial(p, 0, units[i], kHeadDim); });
  StoreFour(OutOf(p, border.first_row, border.first_packed + r, border.kv_head, kHeadDim) + column,
            o);
}

// A block's shared memory.
template <typename Config>
struct DecodeMemory {
  uint32_t base;
  char* aligned;  // the same place
  DecodeShared<Config>& shared;
};
// Sets the barriers of the ring up, which other threads see after a barrier of the block, and waits
// for the kernel before.
template <typename Config>
__device__ __forceinline__ DecodeMemory<Config> BeginDecode(const DecodeAttentionParams& p,
                                                            char* dynamic_shared) {
  const uint32_t base = (SharedAddress(dynamic_shared) + 1023) / 1024 * 1024;
  char* aligned = dynamic_shared + (base - SharedAddress(dynamic_shared));
  auto& shared = *reinterpret_cast<DecodeShared<Config>*>(aligned + Config::kSmall);
  static_assert(sizeof(DecodeShared<Config>) <= Config::kSmallBytes, "shared memory plan");
  if (threadIdx.x == 0) {
    PrefetchTensorMap(&p.kv_map);
    for (int i = 0; i < Config::kStages; ++i) {
      MbarrierInit(SharedAddress(&shared.full[i]), 1);
      MbarrierInit(SharedAddress(&shared.empty[i]), Config::kConsumerWarps);
    }
    MbarrierInitFence();
  }
  GridDependencyLaunch();
  GridDependencyWait();
  return {base, aligned, shared};
}

template <typename Config>
__global__ void __launch_bounds__(Config::kThreads, 1)
    DecodeAttentionKernel(const __grid_constant__ DecodeAttentionParams p) {
  extern __shared__ char dynamic_shared[];
  using Kernel = DecodeKernel<Config>;
  const auto [base, aligned, shared] = BeginDecode<Config>(p, dynamic_shared);
  const typename Kernel::Ring ring{base};
  ScanSequences<Config>(p, shared);
  if (threadIdx.x >= Config::kConsumers) {
    SetMaxRegistersDown<Config::kProducerRegisters>();
    if (threadIdx.x < Config::kConsumers + 32)
      Kernel::Produce(p, DecodeWalk<Config>(p, shared), ring);
  } else {
    SetMaxRegistersUp<Config::kConsumerRegisters>();
    Kernel::Consume(p, DecodeWalk<Config>(p, shared), ring, shared,
                    reinterpret_cast<float*>(aligned + Config::kMerged), base + Config::kQ,
                    base + Config::kP);
  }
}

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_ATTENTION_DECODE_CUH_
