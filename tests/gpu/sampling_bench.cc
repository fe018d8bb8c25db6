#include <random>

#include "op_bench.h"
#include "ops/cuda/row_sampler.h"

namespace lapidary {
namespace {

constexpr int64_t kVocab = 262144;

// Normal logits; peaked: 40 of each row stand out, as with a model that knows what comes next.
std::vector<float> Logits(int rows, bool peaked) {
  std::mt19937_64 rng(5);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> pool(1 << 20);
  for (float& x : pool) x = normal(rng);
  std::vector<float> logits(static_cast<size_t>(rows * kVocab));
  for (int row = 0; row < rows; ++row) {
    const size_t start = static_cast<size_t>(row * kVocab), shift = rng() % pool.size();
    for (size_t i = 0; i < kVocab; ++i) logits[start + i] = pool[(i + shift) % pool.size()];
    for (int i = 0; peaked && i < 40; ++i)
      logits[start + rng() % kVocab] = 18 + 0.004f * static_cast<float>(rng() % 1000);
  }
  return logits;
}

struct Draw {
  const char* name;
  float temperature;
  int top_k;
  float top_p;
  bool peaked;
};
constexpr Draw kDraws[] = {{"greedy", 0, 0, 1, false},
                           {"temperature/flat", 1, 0, 1, false},
                           {"top_k64_top_p0.95", 1, 64, 0.95f, false},
                           {"top_p0.95/peaked", 1, 0, 0.95f, true},
                           {"top_p0.95/flat", 1, 0, 0.95f, false}};

}  // namespace

std::vector<BenchLine> MeasureSampling(CudaDevice& device, int rows, const Ceilings& ceilings) {
  const int64_t bytes = rows * kVocab * int64_t{sizeof(float)},
                copies = std::min<int64_t>(kRotatedBytes / bytes + 1, kBenchLaunches);
  std::vector<BenchLine> lines;
  for (const Draw& draw : kDraws) {
    const std::vector<float> values = Logits(rows, draw.peaked);
    std::vector<DeviceMemory> logits;
    for (int64_t i = 0; i < copies; ++i) {
      logits.emplace_back(device, bytes);
      device.CopyIn(logits.back().data(), values.data(), bytes);
    }
    std::vector<RowQuery> queries(static_cast<size_t>(rows));
    for (size_t i = 0; i < queries.size(); ++i) {
      queries[i].row = static_cast<int64_t>(i);
      queries[i].draws = true;
      SamplingRow& row = queries[i].sampling;
      row.temperature = draw.temperature;
      row.top_k = draw.top_k;
      row.top_p = draw.top_p;
      row.position = i;
    }
    cuda::CudaRowSampler sampler(device, static_cast<int>(kVocab), rows, nullptr);
    sampler.BeginCall(queries);
    sampler.Upload(queries);
    const double seconds = MedianSeconds(device, kBenchLaunches, [&](int i) {
      sampler.Launch(
          MakeTensor(logits[static_cast<size_t>(i % copies)].data(), DType::kF32, rows, kVocab));
    });
    BenchLine line;
    line.name = fmt::format("sampling/{}/T{}", draw.name, rows);
    line.us = seconds * 1e6;
    line.gb_per_s = static_cast<double>(bytes) / seconds * 1e-9;
    line.percent = 100 * line.gb_per_s / ceilings.read_gb_per_s;
    lines.push_back(line);
  }
  return lines;
}

}  // namespace lapidary
