// What the kernels of row_sampling.h share: the order of candidates, a piece of a row in shared
// memory with its filters applied, sorting.
#ifndef LAPIDARY_KERNELS_SAMPLING_ROW_SAMPLING_CUH_
#define LAPIDARY_KERNELS_SAMPLING_ROW_SAMPLING_CUH_

#include "kernels/common/math.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/sampling/row_sampling.h"

namespace lapidary::kernels {

// Floats in the order of unsigned integers; both zeros are one.
__device__ __forceinline__ uint32_t OrderKey(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float FloatOf(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}
constexpr uint32_t kMaskedKey = 0x007fffffu;  // of -infinity

// A candidate: more is better; of equal logits the lower id.
__device__ __forceinline__ uint64_t Candidate(uint32_t key, int id) {
  return static_cast<uint64_t>(key) << 32 | ~static_cast<uint32_t>(id);
}
__device__ __forceinline__ int IdOf(uint64_t candidate) {
  return static_cast<int>(~static_cast<uint32_t>(candidate));
}
__device__ __forceinline__ float LogitOf(uint64_t candidate) {
  return FloatOf(static_cast<uint32_t>(candidate >> 32));
}

__device__ __forceinline__ bool IsGreedy(const RowTask& task) { return task.temperature < 1e-5f; }
// Drawn in the order of ids: no filter asks for the order of the logits.
__device__ __forceinline__ bool IsPlain(const RowTask& task) {
  return !IsGreedy(task) && task.top_k == 0 && task.top_p >= 1.0f && task.min_p <= 0.0f;
}
__device__ __forceinline__ bool IsOpen(const RowTask& task) {  // RowDraw may not decide
  return !IsGreedy(task) && !IsPlain(task) && (task.top_k == 0 || task.top_k > kMaxExactTopK);
}

// All threads call; `partial` has a place a warp and is free again afterwards.
__device__ __forceinline__ float BlockMax(float value, float* partial) {
  value = WarpMax(value);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  value = partial[0];
  for (unsigned w = 1; w < blockDim.x / 32; ++w) value = fmaxf(value, partial[w]);
  __syncthreads();
  return value;
}

// Calls body(x, place) for the thread's elements of a piece; count is a multiple of 4.
template <typename Body>
__device__ __forceinline__ void ForEach(const float* piece, int count, Body&& body) {
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x) * 4; i < count;
       i += static_cast<int>(blockDim.x) * 4) {
    const float4 x = *reinterpret_cast<const float4*>(piece + i);
    body(x.x, i), body(x.y, i + 1), body(x.z, i + 2), body(x.w, i + 3);
  }
}

// Brings logits [first, first + count) of a row into shared memory. `barrier` is fresh.
__device__ __forceinline__ void LoadPiece(const RowSamplingParams& p, const RowTask& task,
                                          int first, int count, float* piece, uint64_t* barrier) {
  const uint32_t address = SharedAddress(barrier);
  if (threadIdx.x == 0) {
    MbarrierInit(address, 1);
    MbarrierInitFence();
    const uint32_t bytes = static_cast<uint32_t>(count) * 4;
    MbarrierArriveExpect(address, bytes);
    if (bytes > 0)
      BulkLoad(SharedAddress(piece), p.logits + task.row * p.logits_stride + first, bytes, address,
               kEvictFirst);
  }
  __syncthreads();
  MbarrierWait(address, 0);
}

__device__ __forceinline__ bool HasFilters(const RowTask& task) {
  return task.biases.begin < task.biases.end || task.counts.begin < task.counts.end ||
         task.masked.begin < task.masked.end || task.allowed >= 0;
}

// Bias, penalties, masks: in the order and the arithmetic of Sampler.
__device__ __forceinline__ void FilterPiece(const RowSamplingParams& p, const RowTask& task,
                                            int first, int count, float* piece) {
  const int thread = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
  const auto at = [&](int id) -> float* {
    return id >= first && id < first + count ? piece + (id - first) : nullptr;
  };
  for (int i = task.biases.begin + thread; i < task.biases.end; i += step) {
    const IdBias bias = p.biases[i];
    if (float* x = at(bias.id)) *x += bias.bias;
  }
  if (task.biases.begin < task.biases.end) __syncthreads();
  for (int i = task.counts.begin + thread; i < task.counts.end; i += step) {
    const IdCount seen = p.counts[i];
    float* x = at(seen.id);
    if (x == nullptr) continue;
    float v = *x;
    v = v > 0 ? v / task.repetition_penalty : v * task.repetition_penalty;
    if (seen.count > 0)
      v = __fsub_rn(v, __fadd_rn(task.presence_penalty, __fmul_rn(task.frequency_penalty,
                                                                  static_cast<float>(seen.count))));
    *x = v;
  }
  if (task.counts.begin < task.counts.end) __syncthreads();
  for (int i = task.masked.begin + thread; i < task.masked.end; i += step)
    if (float* x = at(p.masked[i])) *x = -INFINITY;
  if (task.allowed >= 0) {
    const uint32_t* allowed = p.allowed + task.allowed;
    for (int i = thread; i < count; i += step)
      if (!(allowed[(first + i) / 32] >> (first + i) % 32 & 1)) piece[i] = -INFINITY;
  }
  if (task.masked.begin < task.masked.end || task.allowed >= 0) __syncthreads();
}

// Divides by the temperature; every thread its own elements of ForEach.
__device__ __forceinline__ void ScalePiece(float temperature, int count, float* piece) {
  if (temperature == 1.0f) return;
  for (int i = static_cast<int>(threadIdx.x) * 4; i < count;
       i += static_cast<int>(blockDim.x) * 4) {
    float4& x = *reinterpret_cast<float4*>(piece + i);
    x = make_float4(x.x / temperature, x.y / temperature, x.z / temperature, x.w / temperature);
  }
}

// A step of a bitonic sort of place i over the lanes of a warp: strides below 32.
__device__ __forceinline__ uint64_t ExchangeLanes(uint64_t mine, int i, int width, int stride) {
  const uint64_t other = __shfl_xor_sync(kFullWarp, mine, stride);
  const bool takes_larger = ((i & stride) == 0) == ((i & width) == 0);
  return (mine < other) == takes_larger ? other : mine;
}

// Best first. size is a power of two from 32 on; all threads call.
__device__ __forceinline__ void SortDescending(uint64_t* list, int size) {
  const int thread = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
  __syncthreads();
  for (int i = thread; i < size; i += step) {
    uint64_t mine = list[i];
#pragma unroll
    for (int width = 2; width <= 32; width *= 2)
#pragma unroll
      for (int stride = width / 2; stride > 0; stride /= 2)
        mine = ExchangeLanes(mine, i, width, stride);
    list[i] = mine;
  }
  for (int width = 64; width <= size; width *= 2) {
    for (int stride = width / 2; stride >= 32; stride /= 2) {
      __syncthreads();
      for (int i = thread; i < size / 2; i += step) {
        const int low = 2 * i - i % stride, high = low + stride;
        const uint64_t a = list[low], b = list[high];
        if ((a < b) == ((low & width) == 0)) list[low] = b, list[high] = a;
      }
    }
    __syncthreads();
    for (int i = thread; i < size; i += step) {
      uint64_t mine = list[i];
#pragma unroll
      for (int stride = 16; stride > 0; stride /= 2) mine = ExchangeLanes(mine, i, width, stride);
      list[i] = mine;
    }
  }
  __syncthreads();
}
// The same of `count` candidates in a list with room for the next power of two.
__device__ __forceinline__ void SortCandidates(uint64_t* list, int count) {
  int size = 32;
  while (size < count) size *= 2;
  for (int i = count + static_cast<int>(threadIdx.x); i < size; i += static_cast<int>(blockDim.x))
    list[i] = 0;
  SortDescending(list, size);
}

// prefix[i] = weights of candidates 0 .. i, exp(logit - max) each; in one order. All threads call.
__device__ __forceinline__ void SumWeights(const uint64_t* list, int count, float max,
                                           double* prefix, double* partial) {
  const int warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32,
            lane = static_cast<int>(threadIdx.x) % 32;
  double carry = 0;
  for (int base = 0; base < count; base += static_cast<int>(blockDim.x)) {
    const int i = base + static_cast<int>(threadIdx.x);
    double sum =
        i < count ? exp(static_cast<double>(LogitOf(list[i])) - static_cast<double>(max)) : 0;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const double below = __shfl_up_sync(kFullWarp, sum, offset);
      if (lane >= offset) sum += below;
    }
    if (lane == 31) partial[warp] = sum;
    __syncthreads();
    double before = carry;
    for (int w = 0; w < warps; ++w) {
      if (w < warp) before += partial[w];
      carry += partial[w];
    }
    if (i < count) prefix[i] = before + sum;
    __syncthreads();
  }
}

// How many of the ascending prefix are below `wanted` (kEqual: or equal to it).
template <bool kEqual>
__device__ __forceinline__ int CountBelow(const double* prefix, int count, double wanted) {
  int begin = 0, end = count;
  while (begin < end) {
    const int middle = (begin + end) / 2;
    if (prefix[middle] < wanted || (kEqual && prefix[middle] == wanted))
      begin = middle + 1;
    else
      end = middle;
  }
  return begin;
}

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_SAMPLING_ROW_SAMPLING_CUH_
