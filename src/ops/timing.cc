#include "ops/timing.h"

#include <algorithm>
#include <vector>

#include "base/measure.h"

#ifdef LAPIDARY_CUDA
#include "ops/cuda/cuda_backend.h"
#include "ops/cuda/row_sampler.h"
#endif

namespace lapidary {
namespace {

constexpr int kTimedRuns = 5;
constexpr double kHostSampleSeconds = 0.05, kHostSlowSeconds = 0.5;

}  // namespace

double MedianSeconds(Device& device, int launches, const std::function<void(int)>& launch) {
  int repeats = kTimedRuns;
  const double first = device.Time([&] { launch(0); }) * 1e-3;
  if (device.is_host()) {
    launches = std::clamp(static_cast<int>(kHostSampleSeconds / first), 1, launches);
    if (first > kHostSlowSeconds) repeats = 1;
  }
  for (int i = 1; i < std::min(launches, 3); ++i) launch(i);
  device.Synchronize();
  const auto graph = device.Capture([&] {
    for (int i = 0; i < launches; ++i) launch(i);
  });
  graph->Launch();
  device.Synchronize();
  std::vector<double> ms;
  ms.reserve(static_cast<size_t>(repeats));
  for (int i = 0; i < repeats; ++i) ms.push_back(device.Time([&] { graph->Launch(); }));
  return Median(ms) * 1e-3 / launches;
}

double MedianDrawSeconds(Ops& ops, int launches, std::span<const Tensor> logits,
                         std::span<const RowQuery> queries) {
  Device& device = ops.device();
  const auto at = [&](int i) { return logits[static_cast<size_t>(i) % logits.size()]; };
  const auto vocab_size = static_cast<int>(logits.front().cols()),
             rows = static_cast<int>(queries.size());
#ifdef LAPIDARY_CUDA
  if (!device.is_host()) {
    cuda::CudaRowSampler sampler(static_cast<CudaDevice&>(device), vocab_size, rows, nullptr);
    sampler.BeginCall(queries);
    CHECK(sampler.Upload(queries) == queries.size(), "{} queries are too many for a launch", rows);
    return MedianSeconds(device, launches, [&](int i) { sampler.Launch(at(i)); });
  }
#endif
  const auto sampler = ops.MakeRowSampler(vocab_size, rows, nullptr);
  return MedianSeconds(device, launches, [&](int i) { sampler->Queue(at(i), queries); });
}

void LeaveOut(Ops& ops, [[maybe_unused]] const LeftOut& what) {
  CHECK(!ops.device().is_host(), "a CPU leaves nothing out");
#ifdef LAPIDARY_CUDA
  static_cast<cuda::CudaBackend&>(ops).LeaveOut(what);
#endif
}

}  // namespace lapidary
