// One pass over rows: add, gelu, soft cap, rounding, gathers. A thread takes 16 bytes; where rows
// are many it walks with a grid stride, so that a launch never has more blocks than fill the
// machine a few times.
#include "kernels/common/launch.cuh"
#include "kernels/common/math.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/elementwise/elementwise.h"

namespace lapidary::kernels {
namespace {

constexpr int kVector = 8;
constexpr int kThreads = 256;

__device__ __forceinline__ int64_t FirstItem() {
  return int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t ItemStep() { return int64_t{gridDim.x} * blockDim.x; }

template <bool kGelu>
__global__ void __launch_bounds__(kThreads)
    PairKernel(const __grid_constant__ ElementwiseParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const int vectors = p.num_cols / kVector;
  for (int64_t i = FirstItem(); i < int64_t{p.num_rows} * vectors; i += ItemStep()) {
    const int64_t row = i / vectors, column = i % vectors * kVector;
    float a[kVector], b[kVector] = {};
    Unpack8(*reinterpret_cast<const uint4*>(p.a + row * p.a_stride + column), a);
    if (p.b != nullptr)
      Unpack8(*reinterpret_cast<const uint4*>(p.b + row * p.b_stride + column), b);
#pragma unroll
    for (int j = 0; j < kVector; ++j)
      a[j] = kGelu ? GeluTanh(a[j]) * b[j] : (a[j] + b[j]) * p.scale;
    *reinterpret_cast<uint4*>(p.out + row * p.out_stride + column) = Pack8(a);
  }
}

__global__ void __launch_bounds__(kThreads) SoftCapKernel(const __grid_constant__ SoftCapParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const int vectors = p.num_cols / 4;
  for (int64_t i = FirstItem(); i < int64_t{p.num_rows} * vectors; i += ItemStep()) {
    float4* x = reinterpret_cast<float4*>(p.x + i / vectors * p.stride) + i % vectors;
    const float4 v = *x;
    *x = make_float4(p.cap * tanhf(v.x / p.cap), p.cap * tanhf(v.y / p.cap),
                     p.cap * tanhf(v.z / p.cap), p.cap * tanhf(v.w / p.cap));
  }
}

__global__ void __launch_bounds__(kThreads)
    RoundRowsKernel(const __grid_constant__ RoundRowsParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const int vectors = p.num_cols / 4;
  for (int64_t i = FirstItem(); i < int64_t{p.num_rows} * vectors; i += ItemStep()) {
    const int64_t row = i / vectors, column = i % vectors * 4;
    const float4 v = *reinterpret_cast<const float4*>(p.in + row * p.in_stride + column);
    *reinterpret_cast<uint2*>(p.out + row * p.out_stride + column) =
        make_uint2(PackBf16(v.x, v.y), PackBf16(v.z, v.w));
  }
}

// A block copies one row.
template <bool kInF32>
__global__ void __launch_bounds__(kThreads) GatherKernel(const __grid_constant__ GatherParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const int64_t row = blockIdx.x;
  const int32_t from = p.rows[row];
  Bf16* out = p.out + row * p.out_stride;
  for (int column = static_cast<int>(threadIdx.x) * kVector; column < p.num_cols;
       column += kThreads * kVector) {
    float v[kVector];
    const int64_t place = from * p.in_stride + column;
    if (from < 0) {
#pragma unroll
      for (float& x : v) x = NAN;
    } else if (kInF32) {
      const float4* in = reinterpret_cast<const float4*>(static_cast<const float*>(p.in) + place);
      const float4 low = in[0], high = in[1];
      v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
      v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
    } else {
      Unpack8(*reinterpret_cast<const uint4*>(static_cast<const Bf16*>(p.in) + place), v);
    }
#pragma unroll
    for (float& x : v) x *= p.scale;
    *reinterpret_cast<uint4*>(out + column) = Pack8(v);
  }
}

// In place: a thread owns a column and moves its rows in ascending order, eight loads before their
// stores. Row i comes from rows[i] >= i, so a store never hits a row that is still to be read.
__global__ void __launch_bounds__(32) CompactKernel(const __grid_constant__ GatherParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const int column = static_cast<int>(blockIdx.x * 32 + threadIdx.x) * kVector;
  if (column >= p.num_cols) return;
  constexpr int kAhead = 8;
  for (int row = 0; row < p.num_rows; row += kAhead) {
    uint4 v[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (row + i < p.num_rows)
        v[i] = *reinterpret_cast<const uint4*>(static_cast<const Bf16*>(p.in) +
                                               int64_t{p.rows[row + i]} * p.in_stride + column);
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (row + i < p.num_rows)
        *reinterpret_cast<uint4*>(p.out + int64_t{row + i} * p.out_stride + column) = v[i];
  }
}

__global__ void __launch_bounds__(kThreads)
    ReplaceIdsKernel(const __grid_constant__ ReplaceIdsParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const int row = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (row >= p.num_rows) return;
  int32_t id = p.ids[row];
  for (int i = 0; i < p.num_from; ++i)
    if (p.ids[row] == p.from[i]) id = p.to;
  p.out[row] = id;
}

__global__ void __launch_bounds__(kThreads)
    ScatterIdsKernel(const __grid_constant__ ScatterIdsParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i < p.count) p.out[p.indices[i]] = p.ids[i];
}

// A draw's half as the bits of a bf16 in the upper half of a word.
__device__ __forceinline__ uint32_t DummyBits(uint32_t lane, const FillDummyParams& p) {
  const float uniform = static_cast<float>(lane) - 32767.5f;
  const uint32_t bits = __float_as_uint(__fadd_rn(__fmul_rn(uniform, p.step), p.centre));
  return bits + 0x7fffu + ((bits >> 16) & 1u);
}

// A thread makes pairs of elements with a grid stride.
__global__ void __launch_bounds__(kThreads)
    FillDummyKernel(const __grid_constant__ FillDummyParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const auto key_low = static_cast<uint32_t>(p.key), key_high = static_cast<uint32_t>(p.key >> 32);
  for (int64_t pair = FirstItem(); pair < (p.count + 1) / 2; pair += ItemStep()) {
    uint32_t x = static_cast<uint32_t>(pair) + key_low;
    x = (x ^ (x >> 16)) * 0x21f0aaadu;
    x = (x ^ (x >> 15) ^ key_high ^ static_cast<uint32_t>(pair >> 32)) * 0x735a2d97u;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    x ^= x >> 16;
    const uint32_t low = DummyBits(x & 0xffffu, p) >> 16;
    if (2 * pair + 1 < p.count)
      reinterpret_cast<uint32_t*>(p.out)[pair] = low | (DummyBits(x >> 16, p) & 0xffff0000u);
    else
      reinterpret_cast<uint16_t*>(p.out)[2 * pair] = static_cast<uint16_t>(low);
  }
}

unsigned Blocks(int64_t items) {
  const int64_t blocks = (items + kThreads - 1) / kThreads, most = int64_t{NumSms()} * 8;
  return static_cast<unsigned>(blocks < most ? blocks : most);
}

void RequirePair(const ElementwiseParams& p, const char* name) {
  Require(p.num_cols % kVector == 0, name, "columns", p.num_cols);
  Require(Aligned16(p.a) && Aligned16(p.b) && Aligned16(p.out) && p.a_stride % kVector == 0 &&
              p.b_stride % kVector == 0 && p.out_stride % kVector == 0,
          name, "row stride", p.a_stride);
}

}  // namespace

void LaunchAddScale(const ElementwiseParams& p, Stream stream) {
  RequirePair(p, "AddScale");
  Launch("AddScale", PairKernel<false>,
         {Blocks(int64_t{p.num_rows} * p.num_cols / kVector), kThreads}, stream, p);
}

void LaunchGeluMul(const ElementwiseParams& p, Stream stream) {
  RequirePair(p, "GeluMul");
  Launch("GeluMul", PairKernel<true>,
         {Blocks(int64_t{p.num_rows} * p.num_cols / kVector), kThreads}, stream, p);
}

void LaunchSoftCap(const SoftCapParams& p, Stream stream) {
  Require(p.num_cols % 4 == 0 && p.stride % 4 == 0 && Aligned16(p.x), "SoftCap", "columns",
          p.num_cols);
  Launch("SoftCap", SoftCapKernel, {Blocks(int64_t{p.num_rows} * p.num_cols / 4), kThreads}, stream,
         p);
}

void LaunchRoundRows(const RoundRowsParams& p, Stream stream) {
  Require(p.num_cols % 8 == 0 && p.in_stride % 4 == 0 && Aligned16(p.in) && Aligned16(p.out),
          "RoundRows", "columns", p.num_cols);
  Launch("RoundRows", RoundRowsKernel, {Blocks(int64_t{p.num_rows} * p.num_cols / 4), kThreads},
         stream, p);
}

void LaunchReplaceIds(const ReplaceIdsParams& p, Stream stream) {
  Require(p.num_from <= 16, "ReplaceIds", "ids", p.num_from);
  Launch("ReplaceIds", ReplaceIdsKernel,
         {static_cast<unsigned>((p.num_rows + kThreads - 1) / kThreads), kThreads}, stream, p);
}

void LaunchScatterIds(const ScatterIdsParams& p, Stream stream) {
  Launch("ScatterIds", ScatterIdsKernel,
         {static_cast<unsigned>((p.count + kThreads - 1) / kThreads), kThreads}, stream, p);
}

void LaunchFillDummy(const FillDummyParams& p, Stream stream) {
  Require(reinterpret_cast<unsigned long long>(p.out) % 4 == 0, "FillDummy", "elements", p.count);
  Launch("FillDummy", FillDummyKernel, {Blocks((p.count + 1) / 2), kThreads}, stream, p);
}

void LaunchGather(const GatherParams& p, Stream stream) {
  Require(p.num_cols % kVector == 0 && p.in_stride % kVector == 0 && p.out_stride % kVector == 0 &&
              Aligned16(p.in) && Aligned16(p.out),
          "Gather", "columns", p.num_cols);
  if (p.num_rows == 0) return;
  if (p.in == p.out) {
    Require(p.scale == 1.0f && !p.in_f32, "Gather", "a scale in place, rows", p.num_rows);
    Launch("Compact", CompactKernel, {static_cast<unsigned>((p.num_cols / kVector + 31) / 32), 32},
           stream, p);
  } else {
    Launch("Gather", p.in_f32 ? GatherKernel<true> : GatherKernel<false>,
           {static_cast<unsigned>(p.num_rows), kThreads}, stream, p);
  }
}

}  // namespace lapidary::kernels
