// The sum over a row's experts, alone or with the norms at the end of a layer. A block takes a row,
// a thread eight of its columns.
#include "kernels/common/launch.cuh"
#include "kernels/common/norm.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/moe/moe.h"

namespace lapidary::kernels {
namespace {

constexpr int kMaxThreads = 1024;

// v = the row's sum in the order of its choices.
__device__ __forceinline__ void SumExperts(const ExpertSumParams& p, int64_t row, int column,
                                           float (&v)[kVector]) {
  float4 parts[kMaxTopK][2];
  float weights[kMaxTopK];
#pragma unroll
  for (int j = 0; j < kMaxTopK; ++j) {
    const int place = j < p.top_k ? p.places[row * p.top_k + j] : -1;
    weights[j] = place >= 0 ? p.weights[row * p.weights_stride + j] : 0.0f;
    const float4* from =
        reinterpret_cast<const float4*>(p.pairs + int64_t{place} * p.hidden + column);
    parts[j][0] = place >= 0 ? from[0] : make_float4(0, 0, 0, 0);
    parts[j][1] = place >= 0 ? from[1] : make_float4(0, 0, 0, 0);
  }
#pragma unroll
  for (float& x : v) x = 0;
#pragma unroll
  for (int j = 0; j < kMaxTopK; ++j) {
    const float part[kVector] = {parts[j][0].x, parts[j][0].y, parts[j][0].z, parts[j][0].w,
                                 parts[j][1].x, parts[j][1].y, parts[j][1].z, parts[j][1].w};
#pragma unroll
    for (int i = 0; i < kVector; ++i) v[i] += weights[j] * part[i];
  }
}

__global__ void __launch_bounds__(kMaxThreads)
    ExpertSumKernel(const __grid_constant__ ExpertSumParams p) {
  GridDependencyLaunch();
  GridDependencyWait();
  const int column = static_cast<int>(threadIdx.x) * kVector;
  if (column >= p.hidden) return;
  float v[kVector];
  SumExperts(p, blockIdx.x, column, v);
  *reinterpret_cast<uint4*>(p.out + int64_t{blockIdx.x} * p.out_stride + column) = Pack8(v);
}

__global__ void __launch_bounds__(kMaxThreads, 1)
    ExpertSumNormKernel(const __grid_constant__ ExpertSumNormParams p) {
  __shared__ double partial[4][32];
  const int column = static_cast<int>(threadIdx.x) * kVector;
  const int64_t row = blockIdx.x;
  const bool active = column < p.sum.hidden;
  const int hidden = p.sum.hidden;
  const uint4 dense_norm = LoadNorm(active ? p.dense_norm : nullptr, column),
              expert_norm = LoadNorm(active ? p.expert_norm : nullptr, column),
              post_norm = LoadNorm(active ? p.post_norm : nullptr, column),
              next_norm = LoadNorm(active ? p.next_norm : nullptr, column);
  GridDependencyLaunch();
  GridDependencyWait();
  Bf16* const h = p.h + row * p.h_stride + column;
  Bf16* const x = p.x + row * p.x_stride + column;
  float dense[kVector] = {}, v[kVector] = {}, r[kVector] = {};
  if (active) {
    Unpack8(*reinterpret_cast<const uint4*>(h), dense);
    Unpack8(*reinterpret_cast<const uint4*>(x), r);
    SumExperts(p.sum, row, column, v);
#pragma unroll
    for (float& e : v) e = RoundedBf16(e);
  }
  const double dense_sum = BlockSum(SumSquares(dense), partial[0]),
               expert_sum = BlockSum(SumSquares(v), partial[1]);
  if (active) {
    ScaleRounded(dense, NormFactor(dense_sum, hidden, p.eps), dense_norm);
    ScaleRounded(v, NormFactor(expert_sum, hidden, p.eps), expert_norm);
#pragma unroll
    for (int i = 0; i < kVector; ++i) v[i] = RoundedBf16(dense[i] + v[i]);
  }
  const double sum = BlockSum(SumSquares(v), partial[2]);
  if (active) {
    ScaleRounded(v, NormFactor(sum, hidden, p.eps), post_norm);
#pragma unroll
    for (int i = 0; i < kVector; ++i) v[i] = (r[i] + v[i]) * p.scale;
    const uint4 packed = Pack8(v);
    *reinterpret_cast<uint4*>(x) = packed;
    Unpack8(packed, v);
  }
  if (p.next_norm == nullptr) return;
  const double next_sum = BlockSum(SumSquares(v), partial[3]);
  if (!active) return;
  Scale(v, NormFactor(next_sum, hidden, p.eps), next_norm);
  *reinterpret_cast<uint4*>(h) = Pack8(v);
}

unsigned Threads(int columns) { return static_cast<unsigned>((columns / kVector + 31) / 32 * 32); }

void RequireSum(const ExpertSumParams& p, const char* name) {
  Require(p.hidden % kVector == 0 && p.hidden <= kMaxThreads * kVector && p.top_k <= kMaxTopK, name,
          "columns", p.hidden);
}

}  // namespace

void LaunchExpertSum(const ExpertSumParams& p, Stream stream) {
  const char* name = "ExpertSum";
  RequireSum(p, name);
  Require(p.out_stride % kVector == 0 && Aligned16(p.out), name, "row stride", p.out_stride);
  Launch(name, ExpertSumKernel, {static_cast<unsigned>(p.num_rows), Threads(p.hidden)}, stream, p);
}

void LaunchExpertSumNorm(const ExpertSumNormParams& p, Stream stream) {
  const char* name = "ExpertSumNorm";
  RequireSum(p.sum, name);
  Require(
      Aligned16(p.h) && Aligned16(p.x) && p.h_stride % kVector == 0 && p.x_stride % kVector == 0,
      name, "row stride", p.h_stride);
  Launch(name, ExpertSumNormKernel, {static_cast<unsigned>(p.sum.num_rows), Threads(p.sum.hidden)},
         stream, p);
}

}  // namespace lapidary::kernels
