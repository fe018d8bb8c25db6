// A block takes one row: its threads make the row's cosines and sines once, then each warp takes
// heads. A lane holds the same columns of both halves of a head, so that the pairs (i, i + Dh/2) of
// RoPE meet in one thread.
#include "kernels/attention/page.cuh"
#include "kernels/attention/qkv_store.h"
#include "kernels/common/launch.cuh"
#include "kernels/common/math.cuh"
#include "kernels/common/ptx.cuh"

namespace lapidary::kernels {
namespace {

constexpr int kMaxWarps = 16;

// kPairs neighbouring bf16 as one access.
template <int kPairs>
struct alignas(kPairs * 2) Chunk {
  uint32_t words[kPairs / 2];
};
template <int kPairs>
__device__ __forceinline__ void LoadChunk(const Bf16* from, float (&v)[kPairs]) {
  const auto chunk = *reinterpret_cast<const Chunk<kPairs>*>(from);
#pragma unroll
  for (int i = 0; i < kPairs / 2; ++i) {
    v[2 * i] = LowHalf(chunk.words[i]);
    v[2 * i + 1] = HighHalf(chunk.words[i]);
  }
}
template <int kPairs>
__device__ __forceinline__ void StoreChunk(Bf16* to, const float (&v)[kPairs]) {
  Chunk<kPairs> chunk;
#pragma unroll
  for (int i = 0; i < kPairs / 2; ++i) chunk.words[i] = PackBf16(v[2 * i], v[2 * i + 1]);
  *reinterpret_cast<Chunk<kPairs>*>(to) = chunk;
}

// One lane's share of a head: columns [kPairs*lane, +kPairs) of each half.
template <int kHeadDim>
struct Head {
  static constexpr int kHalf = kHeadDim / 2, kPairs = kHalf / 32;
  float low[kPairs], high[kPairs];

  __device__ void Load(const Bf16* head, int lane) {
    LoadChunk<kPairs>(head + lane * kPairs, low);
    LoadChunk<kPairs>(head + kHalf + lane * kPairs, high);
  }
  __device__ void Store(Bf16* head, int lane) const {
    StoreChunk<kPairs>(head + lane * kPairs, low);
    StoreChunk<kPairs>(head + kHalf + lane * kPairs, high);
  }
  __device__ float Factor(float eps) const {
    double sum = 0;
#pragma unroll
    for (int i = 0; i < kPairs; i += 4)
      sum += SumSquares4(low[i], low[i + 1], low[i + 2], low[i + 3]) +
             SumSquares4(high[i], high[i + 1], high[i + 2], high[i + 3]);
    return NormFactor(WarpSum(sum), kHeadDim, eps);
  }
  __device__ void Fill(float value) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) low[i] = high[i] = value;
  }
  __device__ void Multiply(const Head& factor) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) low[i] *= factor.low[i], high[i] *= factor.high[i];
  }
  // Rounded to bf16, as the norm's output is.
  __device__ void Scale(float factor, const Head& weight) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      low[i] = RoundedBf16(low[i] * factor * weight.low[i]);
      high[i] = RoundedBf16(high[i] * factor * weight.high[i]);
    }
  }
  __device__ void Rotate(const float2* cosine_sine, int lane) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const float2 cs = cosine_sine[lane * kPairs + i];
      const float a = low[i], b = high[i];
      low[i] = a * cs.x - b * cs.y;
      high[i] = b * cs.x + a * cs.y;
    }
  }
};

constexpr int kFoldedLanes = kFoldedKeyColumns / 2 / Head<kFoldedHeadDim>::kPairs;

// A lane's share of a folded row: of the first lanes columns that rotate, K's and V's; of the
// others V's.
__device__ __forceinline__ void StoreFolded(Bf16* row, const Head<kFoldedHeadDim>& key,
                                            const Head<kFoldedHeadDim>& value, int lane) {
  constexpr int kPairs = Head<kFoldedHeadDim>::kPairs, kHalf = kFoldedKeyColumns / 2;
  const int column = lane * kPairs;
  if (lane < kFoldedLanes) {
    StoreChunk<kPairs>(row + column, key.low);
    StoreChunk<kPairs>(row + kHalf + column, key.high);
    StoreChunk<kPairs>(row + kFoldedHeadDim + column, value.low);
    StoreChunk<kPairs>(row + kFoldedHeadDim + kHalf + column, value.high);
  } else {
    StoreChunk<kPairs>(row + kHalf + column, value.low);
    StoreChunk<kPairs>(row + kFoldedHeadDim / 2 + column, value.high);
  }
}

template <int kHeadDim>
__global__ void __launch_bounds__(kMaxWarps * 32)
    QkvStoreKernel(const __grid_constant__ QkvStoreParams p) {
  __shared__ float2 cosine_sine[kHeadDim / 2];
  __shared__ float frequencies[kHeadDim / 2];  // a thread reads what it wrote
  const int row = static_cast<int>(blockIdx.x), lane = threadIdx.x % 32;
  const int num_kv = p.has_kv ? p.kv.num_kv_heads : 0;
  // What nobody writes is asked for before the kernel ahead is over.
  Head<kHeadDim> q_norm, k_norm, ones;
  ones.Fill(1.0f);
  if (p.num_heads > 0) q_norm.Load(p.q_norm, lane);
  if (num_kv > 0 || p.kv.folded) k_norm.Load(p.k_norm, lane);
  if (p.kv.folded && lane >= kFoldedLanes) q_norm.Multiply(k_norm);
  for (int pair = static_cast<int>(threadIdx.x); pair < p.num_rotated;
       pair += static_cast<int>(blockDim.x))
    frequencies[pair] = p.frequencies[pair];
  GridDependencyLaunch();
  GridDependencyWait();
  const int position = p.rows.positions[row];
  for (int pair = static_cast<int>(threadIdx.x); pair < kHeadDim / 2;
       pair += static_cast<int>(blockDim.x)) {
    float sine = 0, cosine = 1;
    // The reference rounds cosine and sine to the type of the rows.
    if (pair < p.num_rotated)
      SinCos(static_cast<float>(position) * frequencies[pair], sine, cosine);
    cosine_sine[pair] = make_float2(RoundedBf16(cosine), RoundedBf16(sine));
  }
  Bf16* qkv = p.qkv + int64_t{row} * p.stride;
  // Where the row's K and V go; null: nowhere. A padding row has neither.
  char *page_keys = nullptr, *scratch_keys = nullptr;
  const int cell = position / kPageTokens,
            offset = position % kPageTokens * (p.kv.folded ? kFoldedColumns : kHeadDim) * 2,
            slot = p.rows.slots[row];
  if (num_kv > 0 && slot >= 0) {
    const int page = p.rows.page_table[int64_t{slot} * p.rows.table_stride + cell];
    if (page > 0) page_keys = PageKeys(p.kv, page, 0) + offset;
    const int chunk = p.chunks != nullptr ? p.chunks[row] : -1;
    if (chunk >= 0) {
      const ChunkPlace& place = p.places[chunk];
      scratch_keys = PageKeys(p.scratch, place.scratch_page + cell - place.first_cell, 0) + offset;
    }
  }
  __syncthreads();
  const int num_items = p.num_heads + num_kv * (p.k_eq_v ? 1 : 2);
  for (int item = static_cast<int>(threadIdx.x / 32); item < num_items;
       item += static_cast<int>(blockDim.x / 32)) {
    Head<kHeadDim> head;
    head.Load(qkv + int64_t{item} * kHeadDim, lane);
    const float factor = head.Factor(p.eps);
    if (item < p.num_heads) {
      head.Scale(factor, q_norm);
      head.Rotate(cosine_sine, lane);
      head.Store(qkv + int64_t{item} * kHeadDim, lane);
      continue;
    }
    if (page_keys == nullptr && scratch_keys == nullptr) continue;
    const int kv_head = (item - p.num_heads) % num_kv;
    const auto store = [&](const Head<kHeadDim>& value, int first_row) {
      const int64_t at =
          int64_t{kv_head} * 2 * kPageTokens * kHeadDim + int64_t{first_row} * kHeadDim;
      if (page_keys != nullptr) value.Store(reinterpret_cast<Bf16*>(page_keys) + at, lane);
      if (scratch_keys != nullptr) value.Store(reinterpret_cast<Bf16*>(scratch_keys) + at, lane);
    };
    if constexpr (kHeadDim == kFoldedHeadDim)
      if (p.kv.folded) {
        Head<kHeadDim> value = head;
        value.Scale(factor, ones);
        head.Scale(factor, k_norm);
        head.Rotate(cosine_sine, lane);
        StoreFolded(reinterpret_cast<Bf16*>(page_keys + kv_head * KvHeadBytes(p.kv)), head, value,
                    lane);
        continue;
      }
    if (p.k_eq_v || item >= p.num_heads + num_kv) {
      Head<kHeadDim> value = head;
      value.Scale(factor, ones);
      store(value, kPageTokens);  // V lies behind K
    }
    if (item < p.num_heads + num_kv) {
      head.Scale(factor, k_norm);
      head.Rotate(cosine_sine, lane);
      store(head, 0);
    }
  }
}

constexpr int kCopyThreads = 256, kCopyParts = 16;
__global__ void __launch_bounds__(kCopyThreads)
    GatherWindowKernel(const __grid_constant__ GatherWindowParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const PageCopy copy = p.copies[blockIdx.x];
  const uint4* from = reinterpret_cast<const uint4*>(PageKeys(p.kv, copy.from, 0));
  uint4* to = reinterpret_cast<uint4*>(PageKeys(p.scratch, copy.to, 0));
  const int count = static_cast<int>(p.kv.num_kv_heads * KvHeadBytes(p.kv) / 16);
  for (int i = static_cast<int>(blockIdx.y * kCopyThreads + threadIdx.x); i < count;
       i += kCopyParts * kCopyThreads)
    to[i] = from[i];
}

template <int kHeadDim>
void LaunchFor(const QkvStoreParams& p, Stream stream) {
  const int items = p.num_heads + (p.has_kv ? p.kv.num_kv_heads * (p.k_eq_v ? 1 : 2) : 0);
  const int warps = items < kMaxWarps ? (items < 4 ? 4 : items) : kMaxWarps;
  Launch("QkvStore", QkvStoreKernel<kHeadDim>,
         {static_cast<unsigned>(p.rows.num_rows), static_cast<unsigned>(warps * 32)}, stream, p);
}

}  // namespace

void LaunchGatherWindow(const GatherWindowParams& p, Stream stream) {
  Require(p.num_copies <= kMaxChunks, "GatherWindow", "copies", p.num_copies);
  Launch("GatherWindow", GatherWindowKernel,
         {dim3(static_cast<unsigned>(p.num_copies), kCopyParts), kCopyThreads}, stream, p);
}

void LaunchQkvStore(const QkvStoreParams& p, Stream stream) {
  Require(Aligned16(p.qkv) && p.stride % 8 == 0, "QkvStore", "row stride", p.stride);
  Require(p.num_rotated <= p.kv.head_dim / 2, "QkvStore", "rotated pairs", p.num_rotated);
  if (p.kv.folded)
    Require(p.kv.head_dim == kFoldedHeadDim && p.num_rotated == kFoldedKeyColumns / 2 &&
                p.chunks == nullptr && (p.k_eq_v || !p.has_kv),
            "QkvStore", "folded head size", p.kv.head_dim);
  if (p.rows.num_rows == 0) return;
  switch (p.kv.head_dim) {
    case 256:
      return LaunchFor<256>(p, stream);
    case 512:
      return LaunchFor<512>(p, stream);
    default:
      ShapeRefused("QkvStore", "head size", p.kv.head_dim);
  }
}

}  // namespace lapidary::kernels
