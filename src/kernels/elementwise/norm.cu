// The norms: one row a block, or one group a warp; a thread keeps its eight columns in registers
// from the load to the store.
#include "kernels/common/launch.cuh"
#include "kernels/common/norm.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/elementwise/elementwise.h"

namespace lapidary::kernels {
namespace {

constexpr int kMaxThreads = 1024;   // so rows of up to 8192 columns
constexpr int kWarpGroupMax = 512;  // a group up to this is a warp's
constexpr int kWarpsPerBlock = 8;

__device__ __forceinline__ void StoreRow(const RmsNormParams& p, int64_t row, int column,
                                         const float (&v)[kVector]) {
  if (p.out_f32) {
    float4* out =
        reinterpret_cast<float4*>(static_cast<float*>(p.out) + row * p.out_stride + column);
    out[0] = make_float4(v[0], v[1], v[2], v[3]);
    out[1] = make_float4(v[4], v[5], v[6], v[7]);
  } else {
    *reinterpret_cast<uint4*>(static_cast<Bf16*>(p.out) + row * p.out_stride + column) = Pack8(v);
  }
}

// One group of a row a block; blockDim = group / 8 rounded up to warps.
__global__ void __launch_bounds__(kMaxThreads)
    RmsNormBlockKernel(const __grid_constant__ RmsNormParams p) {
  __shared__ double partial[32];
  const int64_t row = blockIdx.x;
  const int in_group = static_cast<int>(threadIdx.x) * kVector;
  const int column = static_cast<int>(blockIdx.y) * p.group + in_group;
  const bool active = in_group < p.group;
  const uint4 weight = LoadNorm(active ? p.weight : nullptr, in_group);
  GridDependencyLaunch();
  GridDependencyWait();
  float v[kVector] = {};
  if (active) Unpack8(*reinterpret_cast<const uint4*>(p.in + row * p.in_stride + column), v);
  const double sum = BlockSum(SumSquares(v), partial);
  if (!active) return;
  Scale(v, NormFactor(sum, p.group, p.eps), weight);
  StoreRow(p, row, column, v);
}

// One group of up to 512 columns a warp.
__global__ void __launch_bounds__(kWarpsPerBlock * 32)
    RmsNormWarpKernel(const __grid_constant__ RmsNormParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const int groups = p.num_cols / p.group;
  const int64_t item = int64_t{blockIdx.x} * kWarpsPerBlock + threadIdx.x / 32;
  if (item >= int64_t{p.num_rows} * groups) return;
  const int64_t row = item / groups;
  const int base = static_cast<int>(item % groups) * p.group;
  const int lane = threadIdx.x % 32;
  float v[2][kVector] = {};
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    const int column = (part * 32 + lane) * kVector;
    if (column < p.group)
      Unpack8(*reinterpret_cast<const uint4*>(p.in + row * p.in_stride + base + column), v[part]);
  }
  const float factor = NormFactor(WarpSum(SumSquares(v[0]) + SumSquares(v[1])), p.group, p.eps);
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    const int column = (part * 32 + lane) * kVector;
    if (column >= p.group) continue;
    Scale(v[part], factor, LoadNorm(p.weight, column));
    StoreRow(p, row, base + column, v[part]);
  }
}

__global__ void __launch_bounds__(kMaxThreads)
    NormAddNormKernel(const __grid_constant__ NormAddNormParams p) {
  __shared__ double partial[2][32];
  const int column = static_cast<int>(threadIdx.x) * kVector;
  const bool active = column < p.num_cols;
  const uint4 post_norm = LoadNorm(active ? p.post_norm : nullptr, column),
              next_norm = LoadNorm(active ? p.next_norm : nullptr, column);
  GridDependencyLaunch();
  GridDependencyWait();
  Bf16* h = p.h + int64_t{blockIdx.x} * p.h_stride + column;
  Bf16* x = p.x + int64_t{blockIdx.x} * p.x_stride + column;
  float v[kVector] = {}, r[kVector] = {};
  if (active) {
    Unpack8(*reinterpret_cast<const uint4*>(h), v);
    Unpack8(*reinterpret_cast<const uint4*>(x), r);
  }
  const double sum = BlockSum(SumSquares(v), partial[0]);
  if (active) {
    ScaleRounded(v, NormFactor(sum, p.num_cols, p.eps), post_norm);
#pragma unroll
    for (int i = 0; i < kVector; ++i) v[i] = (r[i] + v[i]) * p.scale;
    const uint4 packed = Pack8(v);
    *reinterpret_cast<uint4*>(x) = packed;
    Unpack8(packed, v);
  }
  if (p.next_norm == nullptr) return;
  const double next_sum = BlockSum(SumSquares(v), partial[1]);
  if (!active) return;
  Scale(v, NormFactor(next_sum, p.num_cols, p.eps), next_norm);
  *reinterpret_cast<uint4*>(h) = Pack8(v);
}

// One group of a row a warp.
__global__ void __launch_bounds__(kWarpsPerBlock * 32)
    PerLayerInputKernel(const __grid_constant__ PerLayerInputParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const int groups = p.num_cols / p.group;
  const int64_t item = int64_t{blockIdx.x} * kWarpsPerBlock + threadIdx.x / 32;
  if (item >= int64_t{p.num_rows} * groups) return;
  const int64_t row = item / groups;
  const int base = static_cast<int>(item % groups) * p.group;
  const int lane = threadIdx.x % 32;
  float v[2][kVector] = {};
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    const int column = (part * 32 + lane) * kVector;
    if (column >= p.group) continue;
    Unpack8(*reinterpret_cast<const uint4*>(p.context + row * p.context_stride + base + column),
            v[part]);
#pragma unroll
    for (int i = 0; i < kVector; ++i) v[part][i] = RoundedBf16(v[part][i] * p.context_scale);
  }
  const float factor = NormFactor(WarpSum(SumSquares(v[0]) + SumSquares(v[1])), p.group, p.eps);
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    const int column = (part * 32 + lane) * kVector;
    if (column >= p.group) continue;
    float token[kVector];
    Unpack8(*reinterpret_cast<const uint4*>(p.tokens + row * p.tokens_stride + base + column),
            token);
    Scale(v[part], factor, LoadNorm(p.norm, column));
#pragma unroll
    for (int i = 0; i < kVector; ++i)
      v[part][i] = (RoundedBf16(v[part][i]) + token[i]) * 0.70710678118654752f;
    *reinterpret_cast<uint4*>(p.context + row * p.context_stride + base + column) = Pack8(v[part]);
  }
}

unsigned BlockThreads(int columns) {
  return static_cast<unsigned>((columns / kVector + 31) / 32 * 32);
}

unsigned WarpBlocks(int64_t items) {
  return static_cast<unsigned>((items + kWarpsPerBlock - 1) / kWarpsPerBlock);
}

}  // namespace

void LaunchRmsNorm(const RmsNormParams& p, Stream stream) {
  const char* name = "RmsNorm";
  Require(p.group > 0 && p.group % kVector == 0 && p.num_cols % p.group == 0, name, "group",
          p.group);
  Require(p.group <= kMaxThreads * kVector, name, "group", p.group);
  Require(Aligned16(p.in) && Aligned16(p.out) && p.in_stride % kVector == 0 &&
              p.out_stride % kVector == 0,
          name, "row stride", p.in_stride);
  if (p.num_rows == 0) return;
  const int groups = p.num_cols / p.group;
  if (p.group <= kWarpGroupMax) {
    Launch(name, RmsNormWarpKernel, {WarpBlocks(int64_t{p.num_rows} * groups), kWarpsPerBlock * 32},
           stream, p);
  } else {
    Launch(name, RmsNormBlockKernel,
           {dim3(static_cast<unsigned>(p.num_rows), static_cast<unsigned>(groups)),
            BlockThreads(p.group)},
           stream, p);
  }
}

void LaunchNormAddNorm(const NormAddNormParams& p, Stream stream) {
  const char* name = "NormAddNorm";
  Require(p.num_cols > 0 && p.num_cols % kVector == 0 && p.num_cols <= kMaxThreads * kVector, name,
          "columns", p.num_cols);
  Require(
      Aligned16(p.h) && Aligned16(p.x) && p.h_stride % kVector == 0 && p.x_stride % kVector == 0,
      name, "row stride", p.h_stride);
  Launch(name, NormAddNormKernel, {static_cast<unsigned>(p.num_rows), BlockThreads(p.num_cols)},
         stream, p);
}

void LaunchPerLayerInput(const PerLayerInputParams& p, Stream stream) {
  const char* name = "PerLayerInput";
  Require(p.group > 0 && p.group % kVector == 0 && p.group <= kWarpGroupMax &&
              p.num_cols % p.group == 0,
          name, "group", p.group);
  Require(Aligned16(p.context) && Aligned16(p.tokens) && p.context_stride % kVector == 0 &&
              p.tokens_stride % kVector == 0,
          name, "row stride", p.context_stride);
  Launch(name, PerLayerInputKernel,
         {WarpBlocks(int64_t{p.num_rows} * (p.num_cols / p.group)), kWarpsPerBlock * 32}, stream,
         p);
}

}  // namespace lapidary::kernels
