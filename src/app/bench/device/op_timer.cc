#include "app/bench/device/op_timer.h"

#include <algorithm>
#include <memory>
#include <random>
#include <utility>

#include "ops/timing.h"

namespace lapidary {
namespace {

constexpr int kLaunches = 20;
constexpr int64_t kRotatedBytes = int64_t{256} << 20, kVocab = 262'144;

// Copies of `bytes` bytes that together are more than a cache holds.
int64_t NumCopies(int64_t bytes) {
  return std::clamp<int64_t>(kRotatedBytes / std::max<int64_t>(bytes, 1) + 1, 1, kLaunches);
}

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

std::vector<RowQuery> Queries(const Draw& draw, int rows) {
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
  return queries;
}

}  // namespace

OpTiming OpTimer::Timing(std::string name, double seconds, int64_t bytes, int64_t flops) const {
  OpTiming timing;
  timing.name = std::move(name);
  timing.us = seconds * 1e6;
  timing.gb_per_s = static_cast<double>(bytes) / seconds * 1e-9;
  timing.tflop_per_s = static_cast<double>(flops) / seconds * 1e-12;
  if (ceilings_.read_gb_per_s == 0) return timing;
  const double of_read = timing.gb_per_s / ceilings_.read_gb_per_s,
               of_flops = timing.tflop_per_s / ceilings_.tflop_per_s;
  timing.is_compute_bound = of_flops > of_read;
  timing.percent = 100 * std::max(of_read, of_flops);
  return timing;
}

OpTiming OpTimer::Measure(OpCase& op_case) const {
  TensorSet made(HostDevice());
  op_case.Make(made);
  std::vector<std::unique_ptr<TensorSet>> sets;
  for (int64_t i = NumCopies(made.num_bytes()); i > 0; --i)
    sets.push_back(made.CopyTo(ops_.device()));
  const double seconds = MedianSeconds(ops_.device(), kLaunches, [&](int i) {
    op_case.Run(ops_, *sets[static_cast<size_t>(i) % sets.size()]);
  });
  return Timing(op_case.Name(), seconds, op_case.Bytes(), op_case.Flops());
}

std::vector<OpTiming> OpTimer::MeasureDraws(int rows) const {
  Device& device = ops_.device();
  const int64_t bytes = rows * kVocab * int64_t{sizeof(float)};
  std::vector<OpTiming> timings;
  for (const Draw& draw : kDraws) {
    const std::vector<float> values = Logits(rows, draw.peaked);
    std::vector<DeviceMemory> logits;
    for (int64_t i = NumCopies(bytes); i > 0; --i) {
      logits.emplace_back(device, bytes);
      device.CopyIn(logits.back().data(), values.data(), bytes);
    }
    std::vector<Tensor> tensors;
    tensors.reserve(logits.size());
    for (const DeviceMemory& copy : logits)
      tensors.push_back(MakeTensor(copy.data(), DType::kF32, rows, kVocab));
    const double seconds = MedianDrawSeconds(ops_, kLaunches, tensors, Queries(draw, rows));
    timings.push_back(
        Timing(fmt::format("sampling/all/{}/T{}", draw.name, rows), seconds, bytes, 0));
  }
  return timings;
}

}  // namespace lapidary
