#include "kernels/gemm/swap_gemm.h"

#include "kernels/common/launch.cuh"
#include "kernels/gemm/swap_gemm.cuh"

namespace lapidary::kernels {
namespace {

constexpr int kTiles[] = {8, 16, 32, 64, 80, 128};

template <int kN, int kRows>
void LaunchDense(const SwapGemmParams& p, Stream stream) {
  using Config = SwapConfig<kN, SwapMode::kDense, kRows>;
  const int tiles = (p.n + kRows - 1) / kRows, splits = p.tiling.splits;
  Launch("SwapGemm", SwapGemmKernel<Config>,
         {dim3(static_cast<unsigned>(tiles * splits),
               static_cast<unsigned>((p.num_rows + kN - 1) / kN)),
          Config::kThreads, Config::kSharedBytes, static_cast<unsigned>(splits)},
         stream, p);
}
template <int kN>
void LaunchDense(const SwapGemmParams& p, Stream stream) {
  p.tiling.weight_rows == 64 ? LaunchDense<kN, 64>(p, stream) : LaunchDense<kN, 128>(p, stream);
}

template <int kN, SwapMode kMode, bool kFewItems = false>
void LaunchExperts(const char* name, const SwapGemmParams& p, Stream stream) {
  using Config = SwapConfig<kN, kMode, kSwapWeightRows, kFewItems>;
  Launch(name, SwapGemmKernel<Config>,
         {static_cast<unsigned>(NumSms() * Config::kBlocksPerSm), Config::kThreads,
          Config::kSharedBytes},
         stream, p);
}

template <SwapMode kMode>
void LaunchExperts(const char* name, const SwapGemmParams& p, int tile, Stream stream) {
  Require(p.num_experts <= kMaxExperts, name, "experts", p.num_experts);
  Require(p.n % 8 == 0 && p.k % 8 == 0 && p.out_stride % 4 == 0 && Aligned16(p.out), name,
          "columns", p.n);
  using FewItems = SwapConfig<16, kMode, kSwapWeightRows, true>;
  switch (tile) {
    case 16:
      if (p.num_rows * ((p.n + FewItems::kOutRows - 1) / FewItems::kOutRows) <=
          NumSms() * FewItems::kBlocksPerSm)
        return LaunchExperts<16, kMode, true>(name, p, stream);
      return LaunchExperts<16, kMode>(name, p, stream);
    case 32:
      return LaunchExperts<32, kMode>(name, p, stream);
    case 64:
      return LaunchExperts<64, kMode>(name, p, stream);
    default:
      return LaunchExperts<128, kMode>(name, p, stream);
  }
}

}  // namespace

int SwapTile(int num_rows) {
  for (const int tile : kTiles)
    if (num_rows <= tile) return tile;
  ShapeRefused("SwapGemm", "rows", num_rows);
}

int ExpertTile(int average_rows) {
  return average_rows <= 6 ? 16 : average_rows <= 24 ? 32 : average_rows <= 64 ? 64 : 128;
}

TensorMap MakeWeightMap(const Bf16* weight, int64_t rows, int64_t k, int64_t stride,
                        int tile_rows) {
  TensorMapSpec spec;
  spec.base = weight;
  spec.rank = 2;
  spec.dims = {static_cast<uint64_t>(k), static_cast<uint64_t>(rows)};
  spec.strides = {static_cast<uint64_t>(stride) * 2};
  spec.box = {64, static_cast<uint32_t>(tile_rows)};
  return MakeTensorMap(spec);
}

// [E][gate or up][F/8][8][K], fetched so that eight gate rows lie before their eight up rows.
TensorMap MakeGateUpMap(const Bf16* weight, int64_t experts, int64_t width, int64_t k,
                        int tile_rows) {
  const auto f = static_cast<uint64_t>(width), depth = static_cast<uint64_t>(k);
  TensorMapSpec spec;
  spec.base = weight;
  spec.rank = 5;
  spec.dims = {depth, 8, 2, f / 8, static_cast<uint64_t>(experts)};
  spec.strides = {depth * 2, f * depth * 2, 8 * depth * 2, 2 * f * depth * 2};
  spec.box = {64, 8, 2, static_cast<uint32_t>(tile_rows / 16), 1};
  return MakeTensorMap(spec);
}

TensorMap MakeInputMap(const Bf16* in, int64_t rows, int64_t k, int64_t stride, int tile_rows) {
  TensorMapSpec spec;
  spec.base = in;
  spec.rank = 2;
  spec.dims = {static_cast<uint64_t>(k), static_cast<uint64_t>(rows)};
  spec.strides = {static_cast<uint64_t>(stride) * 2};
  spec.box = {64, static_cast<uint32_t>(tile_rows)};
  return MakeTensorMap(spec);
}

int SwapSplits(int n, int k) {
  // Two blocks a multiprocessor are resident; fewer, longer pieces of K are better where there are
  // enough.
  const int tiles = (n + 127) / 128, blocks = (k + 63) / 64;
  int splits = 1;
  while (splits < 8 && tiles * splits * 10 < NumSms() * 9 && blocks / (2 * splits) >= 4)
    splits *= 2;
  return splits;
}

int InvariantSplits(int k) {
  const int blocks = (k + 63) / 64;
  return blocks >= 64 ? 4 : blocks >= 16 ? 2 : 1;
}

void LaunchSwapGemm(const SwapGemmParams& p, Stream stream) {
  const char* name = "SwapGemm";
  Require(p.n % 4 == 0 && p.k % 8 == 0 && p.out_stride % 4 == 0, name, "columns", p.n);
  if (p.num_rows == 0) return;
  Require(!p.gated || p.n % 128 == 0, name, "gates and ups", p.n);
  const SwapTiling& tiling = p.tiling;
  Require(tiling.weight_rows == 64 || tiling.weight_rows == 128, name, "weight rows",
          tiling.weight_rows);
  Require(tiling.splits > 0 && tiling.weight_rows / 16 % tiling.splits == 0 &&
              tiling.splits * 64 <= p.k + 63,
          name, "splits", tiling.splits);
  Require(p.in_box_rows == tiling.input_rows, name, "input rows", p.in_box_rows);
  switch (tiling.input_rows) {
    case 8:
      return LaunchDense<8>(p, stream);
    case 16:
      return LaunchDense<16>(p, stream);
    case 32:
      return LaunchDense<32>(p, stream);
    case 64:
      return LaunchDense<64>(p, stream);
    case 80:
      return LaunchDense<80>(p, stream);
    case 128:
      return LaunchDense<128>(p, stream);
    default:
      ShapeRefused(name, "input rows", tiling.input_rows);
  }
}

void LaunchExpertGateUp(const SwapGemmParams& p, int average_rows, Stream stream) {
  LaunchExperts<SwapMode::kGateUp>("ExpertGateUp", p, ExpertTile(average_rows), stream);
}
void LaunchExpertDown(const SwapGemmParams& p, int average_rows, Stream stream) {
  LaunchExperts<SwapMode::kDown>("ExpertDown", p, ExpertTile(average_rows), stream);
}

}  // namespace lapidary::kernels
