// The swap-AB kernel. One producer warp fills a ring of stages by TMA: 128 or 64 weight rows and kN
// input rows, 64 of K each; a consumer warpgroup for each 64 weight rows multiplies them by all
// input rows of the block. The result passes through shared memory. The blocks of a cluster share
// K: each sends every other one the sums of that one's rows, and adds what it is sent in the order
// of the blocks.
#ifndef LAPIDARY_KERNELS_GEMM_SWAP_GEMM_CUH_
#define LAPIDARY_KERNELS_GEMM_SWAP_GEMM_CUH_

#include "kernels/common/math.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/common/wgmma.cuh"
#include "kernels/gemm/swap_gemm.h"

namespace lapidary::kernels {

enum class SwapMode { kDense, kGateUp, kDown };

// kFewItems: of experts, where no block has more than one item.
template <int kN_, SwapMode kMode_, int kRows_ = 128, bool kFewItems_ = false>
struct SwapConfig {
  static constexpr int kN = kN_;
  static constexpr SwapMode kMode = kMode_;
  static constexpr int kRows = kRows_, kDepth = 64;  // weight rows of a tile, K of a stage
  static constexpr int kConsumers = 2 * kRows, kThreads = kConsumers + 32;
  static constexpr int kWeightBytes = kRows * 128, kInBytes = kN * 128,
                       kStageBytes = kWeightBytes + kInBytes;
  // Two blocks share a multiprocessor, so that the next kernel's weights are under way while this
  // one ends.
  static constexpr int kBlocksPerSm = kN <= 80 || kRows == 64 ? 2 : 1;
  // What a block of a cluster is sent. Where that is much it takes the ring's place, once all
  // blocks are done with theirs.
  static constexpr int kSentBytes = kMode == SwapMode::kDense ? kRows * kN * 4 : 0;
  static constexpr bool kSentToRing = kSentBytes > 20 * 1024;
  // Results: [kN][output rows] f32, padded so that a warp's stores hit 32 banks. They take the
  // ring's place, but where a block has many items and few rows: there the next item's weights come
  // meanwhile.
  static constexpr int kOutRows = kMode == SwapMode::kGateUp ? kRows / 2 : kRows;
  static constexpr int kOutStride = kOutRows + 4;
  static constexpr int kOutBytes = kN * kOutStride * 4;
  static constexpr bool kOutToRing = kMode == SwapMode::kDense || kN > 32 || kFewItems_;
  // Beside the ring.
  static constexpr int kBesideBytes = (kSentToRing ? 0 : kSentBytes) + (kOutToRing ? 0 : kOutBytes);
  static constexpr int kRingBytes = (kBlocksPerSm == 2 ? 110 : 210) * 1024 - kBesideBytes;
  static constexpr int kStages = kRingBytes / kStageBytes < 8 ? kRingBytes / kStageBytes : 8;
  static constexpr int kSent = kSentToRing ? 0 : kStages * kStageBytes,
                       kOut = kOutToRing ? 0 : kStages * kStageBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes + kBesideBytes + 1024;
  static_assert(kOutBytes <= kStages * kStageBytes && kSentBytes <= kStages * kStageBytes,
                "results fit in the ring");
  static_assert(kStageBytes % 1024 == 0, "stages start at the border of a swizzle pattern");
};

struct SwapShared {
  unsigned long long full[8], empty[8];
  unsigned long long sent;         // all sums of this block's rows have come
  unsigned long long results_out;  // the consumers no longer use the ring for an item's results
  int item_base[kMaxExperts + 1];  // first work item of each expert
};

// One tile of the output: weight tile, split of K, and which input rows.
struct SwapItem {
  int expert, tile, first_row, num_rows;
  int first_block, num_blocks;  // of kDepth
};

template <typename Config>
struct SwapKernel {
  static constexpr int kN = Config::kN, kStages = Config::kStages;
  static constexpr SwapMode kMode = Config::kMode;

  // Output columns of a tile: gates and ups share one.
  static __device__ int OutRows(const SwapGemmParams& p) {
    return kMode == SwapMode::kDense && p.gated ? Config::kRows / 2 : Config::kOutRows;
  }
  static __device__ int NumTiles(const SwapGemmParams& p) {
    return (p.n + Config::kOutRows - 1) / Config::kOutRows;
  }
  static __device__ int NumBlocks(const SwapGemmParams& p) {
    return (p.k + Config::kDepth - 1) / Config::kDepth;
  }

  // Experts: where each one's items begin; an item is (expert, weight tile, kN of its rows).
  static __device__ void ScanExperts(const SwapGemmParams& p, SwapShared& shared) {
    if (threadIdx.x < 32) {
      const int lane = threadIdx.x;
      int carry = 0;
      for (int base = 0; base < p.num_experts; base += 32) {
        const int e = base + lane;
        int items = 0;
        if (e < p.num_experts)
          items = (p.expert_starts[e + 1] - p.expert_starts[e] + kN - 1) / kN * NumTiles(p);
#pragma unroll
        for (int offset = 1; offset < 32; offset *= 2) {
          const int below = __shfl_up_sync(kFullWarp, items, offset);
          if (lane >= offset) items += below;
        }
        if (e < p.num_experts) shared.item_base[e + 1] = carry + items;
        carry += __shfl_sync(kFullWarp, items, 31);
      }
      if (lane == 0) shared.item_base[0] = 0;
    }
    __syncthreads();
  }
  static __device__ int NumItems(const SwapGemmParams& p, const SwapShared& shared) {
    return kMode == SwapMode::kDense ? 1 : shared.item_base[p.num_experts];
  }
  static __device__ SwapItem Item(const SwapGemmParams& p, const SwapShared& shared, int index) {
    SwapItem item;
    if constexpr (kMode == SwapMode::kDense) {
      const int split = static_cast<int>(blockIdx.x) % p.tiling.splits, blocks = NumBlocks(p);
      item.expert = 0;
      item.tile = static_cast<int>(blockIdx.x) / p.tiling.splits;
      item.first_row = static_cast<int>(blockIdx.y) * kN;
      item.num_rows = min(kN, p.num_rows - item.first_row);
      item.first_block = blocks * split / p.tiling.splits;
      item.num_blocks = blocks * (split + 1) / p.tiling.splits - item.first_block;
    } else {
      int low = 0, high = p.num_experts;
      while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (shared.item_base[middle] <= index)
          low = middle;
        else
          high = middle;
      }
      const int begin = p.expert_starts[low], rows = p.expert_starts[low + 1] - begin;
      const int chunks = (rows + kN - 1) / kN, local = index - shared.item_base[low];
      item.expert = low;
      item.tile = local / chunks;
      const int chunk = local % chunks;
      item.first_row = begin + chunk * kN;
      item.num_rows = min(kN, rows - chunk * kN);
      item.first_block = 0;
      item.num_blocks = NumBlocks(p);
    }
    return item;
  }

  struct Ring {
    uint32_t stages, full, empty;
    int stage = 0;
    uint32_t phase = 0;
    __device__ uint32_t weights() const { return stages + stage * Config::kStageBytes; }
    __device__ uint32_t in() const { return weights() + Config::kWeightBytes; }
    __device__ uint32_t full_barrier() const { return full + stage * 8; }
    __device__ uint32_t empty_barrier() const { return empty + stage * 8; }
    __device__ void Advance() {
      if (++stage == kStages) stage = 0, phase ^= 1;
    }
  };

  // Announces the stage's bytes and asks for its weights.
  static __device__ void LoadWeights(const SwapGemmParams& p, const SwapItem& item, int block,
                                     const Ring& ring) {
    const int in_bytes = p.in_box_rows == kN ? Config::kInBytes : item.num_rows * 128;
    MbarrierArriveExpect(ring.full_barrier(), Config::kWeightBytes + in_bytes);
    const int column = (item.first_block + block) * Config::kDepth;
    if (kMode == SwapMode::kGateUp || (kMode == SwapMode::kDense && p.gated)) {
      const int at[5] = {column, 0, 0, item.tile * (Config::kRows / 16), item.expert};
      TmaLoad5d(ring.weights(), &p.weight_map, at, ring.full_barrier(), kEvictFirst);
    } else {
      TmaLoad2d(ring.weights(), &p.weight_map, column,
                item.expert * p.n + item.tile * Config::kRows, ring.full_barrier(), kEvictFirst);
    }
  }
  // Whole warp. One box of neighbouring rows, or a box for each row of an expert.
  static __device__ void LoadInput(const SwapGemmParams& p, const SwapItem& item, int block,
                                   const Ring& ring) {
    const int lane = threadIdx.x % 32, column = (item.first_block + block) * Config::kDepth;
    if (p.in_box_rows == kN) {
      if (lane == 0)
        TmaLoad2d(ring.in(), &p.in_map, column, item.first_row, ring.full_barrier(), kEvictLast);
    } else {
      for (int r = lane; r < item.num_rows; r += 32) {
        const int sorted = item.first_row + r;
        const int row = p.sorted_rows != nullptr ? p.sorted_rows[sorted] : sorted;
        TmaLoad2d(ring.in() + r * 128, &p.in_map, column, row, ring.full_barrier(), kEvictLast);
      }
    }
  }

  static __device__ void Produce(const SwapGemmParams& p, const SwapShared& shared, Ring ring) {
    const int lane = threadIdx.x % 32;
    int fetched = 0;
    uint32_t parity = 0;
    if constexpr (kMode == SwapMode::kDense) {
      // Nobody writes weights: the first stages need not wait for the kernel before.
      const SwapItem item = Item(p, shared, 0);
      Ring ahead = ring;
      for (; fetched < kStages && fetched < item.num_blocks; ++fetched, ahead.Advance())
        if (lane == 0) LoadWeights(p, item, fetched, ahead);
      GridDependencyWait();
    }
    for (int index = static_cast<int>(blockIdx.x);
         kMode == SwapMode::kDense || index < NumItems(p, shared);
         index += static_cast<int>(gridDim.x)) {
      const SwapItem item = Item(p, shared, index);
      for (int block = 0; block < item.num_blocks; ++block, ring.Advance()) {
        if (block >= fetched || kMode != SwapMode::kDense) {
          MbarrierWait(ring.empty_barrier(), ring.phase ^ 1);
          if (lane == 0) LoadWeights(p, item, block, ring);
          __syncwarp();  // the bytes are announced before any arrives
        }
        LoadInput(p, item, block, ring);
      }
      if (kMode == SwapMode::kDense) return;
      if (!Config::kOutToRing) continue;
      MbarrierWait(SharedAddress(&shared.results_out), parity);
      parity ^= 1;
    }
  }

  using Accumulator = float[kN / 2];

  static __device__ void Multiply(const SwapItem& item, Accumulator& sums, Ring& ring, int group) {
    uint32_t previous = 0;
    for (int block = 0; block < item.num_blocks; ++block) {
      MbarrierWait(ring.full_barrier(), ring.phase);
      const uint64_t a = KMajorDescriptor(ring.weights() + group * 64 * 128),
                     b = KMajorDescriptor(ring.in());
      WgmmaFence();
#pragma unroll
      for (int step = 0; step < Config::kDepth / 16; ++step)
        Wgmma(sums, a + 2 * step, b + 2 * step, block + step > 0);
      WgmmaCommit();
      WgmmaWait<1>();
      if (block > 0 && threadIdx.x % 128 == 0) MbarrierArrive(previous);
      previous = ring.empty_barrier();
      ring.Advance();
    }
    WgmmaWait<0>();
    if (item.num_blocks > 0 && threadIdx.x % 128 == 0) MbarrierArrive(previous);
  }

  // Row of the tile and input row of a thread's sums: [16-row block of its warp][lane/4 (+8)], [8n
  // + 2 (lane%4) (+1)].
  static __device__ void StoreSums(const Accumulator& sums, float* out, int group) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const int row = group * 64 + warp * 16 + lane / 4;
#pragma unroll
    for (int n = 0; n < kN / 8; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int in_row = n * 8 + lane % 4 * 2 + i;
        if constexpr (kMode == SwapMode::kGateUp) {
          // Rows lane/4 of a block of 16 are gates, eight on are their ups.
          out[in_row * Config::kOutStride + group * 32 + warp * 8 + lane / 4] =
              GeluTanh(sums[4 * n + i]) * sums[4 * n + 2 + i];
        } else {
          out[in_row * Config::kOutStride + row] = sums[4 * n + i];
          out[in_row * Config::kOutStride + row + 8] = sums[4 * n + 2 + i];
        }
      }
  }

  // Sends each block of the cluster its part of the sums: a block has kRows / splits weight rows,
  // and a warp's 16 belong to one block. There they lie as [16 rows][sender][8 input rows][lane].
  static __device__ void SendSums(const SwapGemmParams& p, const Accumulator& sums, uint32_t sent,
                                  uint32_t barrier) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32,
              warps = Config::kRows / 16 / p.tiling.splits;
    const auto owner = static_cast<uint32_t>(warp / warps);
    const uint32_t to =
        ClusterAddress(sent, owner) + SentOffset(p, warp % warps, ClusterRank(), lane);
    const uint32_t there = ClusterAddress(barrier, owner);
#pragma unroll
    for (int n = 0; n < kN / 8; ++n)
      SendCluster4(to + n * 512, sums[4 * n], sums[4 * n + 1], sums[4 * n + 2], sums[4 * n + 3],
                   there);
  }
  static __device__ uint32_t SentOffset(const SwapGemmParams& p, int rows16, uint32_t sender,
                                        int lane) {
    return (rows16 * p.tiling.splits + sender) * (kN / 8 * 512) + lane * 16;
  }
  // Sums and stores this block's rows. A lane has weight rows lane / 4 and eight on, input rows 2
  // (lane % 4) and the next; with its neighbour's it makes two weight rows of one input row, which
  // lie side by side in the output.
  static __device__ void WriteSums(const SwapGemmParams& p, const SwapItem& item, uint32_t sent) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32,
              warps = Config::kRows / 16 / p.tiling.splits;
    const int rank = static_cast<int>(ClusterRank());
    for (int i = warp; i < warps * (kN / 8); i += Config::kConsumers / 32) {
      const int rows16 = i / (kN / 8), n = i % (kN / 8);
      if (n * 8 >= item.num_rows) continue;
      float4 parts[8];
#pragma unroll
      for (int sender = 0; sender < 8; ++sender)
        if (sender < p.tiling.splits)
          parts[sender] = LoadShared4(
              sent + SentOffset(p, rows16, static_cast<uint32_t>(sender), lane) + n * 512);
      float4 sum = parts[0];
#pragma unroll
      for (int sender = 1; sender < 8; ++sender)
        if (sender < p.tiling.splits)
          sum = make_float4(sum.x + parts[sender].x, sum.y + parts[sender].y,
                            sum.z + parts[sender].z, sum.w + parts[sender].w);
      const bool odd = lane / 4 % 2 != 0;
      const int in_row = n * 8 + lane % 4 * 2 + (odd ? 1 : 0);
      const int pair = lane / 8 * 2;  // of weight rows
      const int block = rank * warps + rows16;
      if (p.gated) {
        const float2 v = Neighbours(GeluMul(sum.x, sum.z), GeluMul(sum.y, sum.w), odd);
        StorePair(p, item, in_row, item.tile * (Config::kRows / 2) + block * 8 + pair, v);
      } else {
        const int column = item.tile * Config::kRows + block * 16 + pair;
        const float2 low = Neighbours(sum.x, sum.y, odd), high = Neighbours(sum.z, sum.w, odd);
        FinishPair(p, item, in_row, column, low);
        FinishPair(p, item, in_row, column + 8, high);
      }
    }
  }
  // A lane of an even weight row has (first, second) input row of it, the lane four on those of the
  // next weight row. The even one gets both weight rows of the first input row, the odd one those
  // of the second.
  static __device__ float2 Neighbours(float first, float second, bool odd) {
    const float other = __shfl_xor_sync(kFullWarp, odd ? first : second, 4);
    return odd ? make_float2(other, second) : make_float2(first, other);
  }
  static __device__ void FinishPair(const SwapGemmParams& p, const SwapItem& item, int in_row,
                                    int column, float2 v) {
    if (in_row >= item.num_rows || column >= p.n) return;
    if (p.up != nullptr) {
      const auto up = *reinterpret_cast<const uint32_t*>(
          p.up + int64_t{item.first_row + in_row} * p.up_stride + column);
      v = make_float2(GeluMul(v.x, LowHalf(up)), GeluMul(v.y, HighHalf(up)));
    } else if (p.cap > 0) {
      v = make_float2(SoftCap(p, v.x), SoftCap(p, v.y));
    }
    StorePair(p, item, in_row, column, v);
  }
  static __device__ void StorePair(const SwapGemmParams& p, const SwapItem& item, int in_row,
                                   int column, const float2& v) {
    if (in_row >= item.num_rows || column >= (p.gated ? p.n / 2 : p.n)) return;
    const int64_t at = int64_t{item.first_row + in_row} * p.out_stride + column;
    if (p.out_f32)
      *reinterpret_cast<float2*>(static_cast<float*>(p.out) + at) = v;
    else
      *reinterpret_cast<uint32_t*>(static_cast<Bf16*>(p.out) + at) = PackBf16(v.x, v.y);
  }

  // gelu(gate) * up, of sums rounded as they would be without this.
  static __device__ float GeluMul(float gate, float up) {
    return GeluTanh(RoundedBf16(gate)) * RoundedBf16(up);
  }
  static __device__ float SoftCap(const SwapGemmParams& p, float x) {
    return p.cap * tanhf(x / p.cap);
  }
  // Four columns of a product that is not split, as they are stored.
  static __device__ float4 Finish(const SwapGemmParams& p, const SwapItem& item, const float* out,
                                  int in_row, int column, int out_column) {
    const float* row = out + in_row * Config::kOutStride;
    if (kMode == SwapMode::kDense && p.gated) {
      // Eight gates, then their eight ups.
      const int at = column / 8 * 16 + column % 8;
      return GeluMul4(*reinterpret_cast<const float4*>(row + at),
                      *reinterpret_cast<const float4*>(row + at + 8));
    }
    const float4 v = *reinterpret_cast<const float4*>(row + column);
    if (kMode != SwapMode::kDense) return v;
    if (p.up != nullptr) {
      const uint2 up = *reinterpret_cast<const uint2*>(
          p.up + int64_t{item.first_row + in_row} * p.up_stride + out_column);
      return GeluMul4(v, make_float4(LowHalf(up.x), HighHalf(up.x), LowHalf(up.y), HighHalf(up.y)));
    }
    if (p.cap > 0)
      return make_float4(SoftCap(p, v.x), SoftCap(p, v.y), SoftCap(p, v.z), SoftCap(p, v.w));
    return v;
  }
  static __device__ float4 GeluMul4(const float4& gate, const float4& up) {
    return make_float4(GeluMul(gate.x, up.x), GeluMul(gate.y, up.y), GeluMul(gate.z, up.z),
                       GeluMul(gate.w, up.w));
  }

  static __device__ void WriteOut(const SwapGemmParams& p, const SwapItem& item, const float* out) {
    const bool gated = kMode == SwapMode::kDense && p.gated;
    const unsigned vector_bits = OutRows(p) == 32 ? 3 : OutRows(p) == 64 ? 4 : 5;  // four each
    const int columns = gated ? p.n / 2 : p.n;
    const bool f32 = kMode == SwapMode::kDown || (kMode == SwapMode::kDense && p.out_f32);
    for (unsigned i = threadIdx.x; i < static_cast<unsigned>(kN) << vector_bits;
         i += Config::kConsumers) {
      const int in_row = static_cast<int>(i >> vector_bits),
                column = static_cast<int>(i & ((1u << vector_bits) - 1)) * 4;
      if (in_row >= item.num_rows) break;
      const int out_column = item.tile * OutRows(p) + column;
      if (out_column >= columns) continue;
      const float4 v = Finish(p, item, out, in_row, column, out_column);
      const int64_t at = int64_t{item.first_row + in_row} * p.out_stride + out_column;
      if (f32)
        *reinterpret_cast<float4*>(static_cast<float*>(p.out) + at) = v;
      else
        *reinterpret_cast<uint2*>(static_cast<Bf16*>(p.out) + at) =
            make_uint2(PackBf16(v.x, v.y), PackBf16(v.z, v.w));
    }
  }

  static __device__ void Consume(const SwapGemmParams& p, SwapShared& shared, Ring ring,
                                 float* out) {
    const int group = threadIdx.x / 128;
    for (int index = static_cast<int>(blockIdx.x);
         kMode == SwapMode::kDense || index < NumItems(p, shared);
         index += static_cast<int>(gridDim.x)) {
      const SwapItem item = Item(p, shared, index);
      Accumulator sums;
      Multiply(item, sums, ring, group);
      if constexpr (kMode == SwapMode::kDense) {
        // The producer waited for the kernel before; here is written what that one may still read.
        GridDependencyWait();
        if (p.tiling.splits > 1) {
          const uint32_t sent = ring.stages + Config::kSent, barrier = SharedAddress(&shared.sent);
          ClusterWait();                              // the others have begun
          if (Config::kSentToRing) ClusterBarrier();  // and are done with their rings
          SendSums(p, sums, sent, barrier);
          MbarrierWait(barrier, 0);
          return WriteSums(p, item, sent);
        }
      }
      // All groups have read their last stage, and the results before these are out.
      NamedBarrier(1, Config::kConsumers);
      StoreSums(sums, out, group);
      NamedBarrier(1, Config::kConsumers);
      WriteOut(p, item, out);
      if (kMode == SwapMode::kDense) return;
      if (!Config::kOutToRing) continue;
      FenceProxyAsync();  // results were ordinary writes, the next stage is TMA's
      __syncwarp();
      if (threadIdx.x % 32 == 0) MbarrierArrive(SharedAddress(&shared.results_out));
    }
  }
};

template <typename Config>
__global__ void __launch_bounds__(Config::kThreads, Config::kBlocksPerSm)
    SwapGemmKernel(const __grid_constant__ SwapGemmParams p) {
  extern __shared__ char dynamic_shared[];
  __shared__ SwapShared shared;
  using Kernel = SwapKernel<Config>;
  const uint32_t base = (SharedAddress(dynamic_shared) + 1023) / 1024 * 1024;
  float* out = reinterpret_cast<float*>(dynamic_shared + (base - SharedAddress(dynamic_shared)) +
                                        Config::kOut);
  typename Kernel::Ring ring{base, SharedAddress(shared.full), SharedAddress(shared.empty)};
  if (threadIdx.x == 0) {
    PrefetchTensorMap(&p.weight_map);
    PrefetchTensorMap(&p.in_map);
    for (int i = 0; i < Config::kStages; ++i) {
      MbarrierInit(ring.full + i * 8, 1);
      MbarrierInit(ring.empty + i * 8, Config::kConsumers / 128);
    }
    MbarrierInit(SharedAddress(&shared.results_out), Config::kConsumers / 32);
    MbarrierInit(SharedAddress(&shared.sent), 1);
    MbarrierInitFence();
    MbarrierArriveExpect(SharedAddress(&shared.sent), Config::kSentBytes);
  }
  GridDependencyLaunch();
  if constexpr (Config::kMode != SwapMode::kDense) {
    GridDependencyWait();
    Kernel::ScanExperts(p, shared);
  } else {
    __syncthreads();
    if (p.tiling.splits > 1) ClusterArrive();
  }
  if (threadIdx.x < Config::kConsumers) {
    Kernel::Consume(p, shared, ring, out);
  } else {
    Kernel::Produce(p, shared, ring);
    if (Config::kMode == SwapMode::kDense && p.tiling.splits > 1) {
      __syncwarp();
      ClusterWait();
      if (Config::kSentToRing) ClusterBarrier();
    }
  }
}

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_GEMM_SWAP_GEMM_CUH_
