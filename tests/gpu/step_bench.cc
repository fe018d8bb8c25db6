#include "step_bench.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "kv/arena.h"
#include "model/gemma4.h"
#include "model/loader.h"
#include "ops/batch.h"

namespace lapidary {
namespace {

constexpr int kRepeats = 5, kLaunches = 10;

// The page table of `rows` sequences, each with pages of its own from `first` on.
std::vector<int32_t> Pages(int rows, int cells, int32_t first) {
  std::vector<int32_t> pages(static_cast<size_t>(rows) * static_cast<size_t>(cells));
  std::iota(pages.begin(), pages.end(), first);
  return pages;
}

int Slabs(int64_t pages, int per_slab) {
  return per_slab == 0 ? 0 : static_cast<int>((pages + per_slab - 1) / per_slab);
}

}  // namespace

double MeasureStep(const std::filesystem::path& dir, const std::shared_ptr<Ops>& ops, int rows,
                   int context) {
  Device& device = ops->device();
  const Result<std::unique_ptr<Checkpoint>> made =
      MakeDummyCheckpoint(dir, static_cast<uint64_t>(device.free_bytes()), ops);
  if (!made.ok()) throw StartupError(made.error().message);
  const Checkpoint& model = *made.value();
  const bool folds = ChooseKvFold(model.config, KvFold::kAuto, true).folds;
  const KvLayout layout =
      KvLayout::Make(KvShapes(model.config, folds), model.config.window, DType::kBf16);
  const int cells = context / kPageTokens + 1;
  const int64_t pages = int64_t{rows} * cells;
  const int full_slabs = Slabs(pages, layout.full_pages_per_slab),
            sliding_slabs = Slabs(pages, layout.sliding_pages_per_slab);
  KvArena arena(layout, 1 + full_slabs + sliding_slabs, device);
  const LayerKv kv = arena.layer(0);
  constexpr int kFiniteByte = 0x3c;  // any bf16 of it is 0.011
  device.Fill(kv.base, kFiniteByte, (1 + full_slabs + sliding_slabs) * layout.slab_bytes);
  std::vector<int32_t> full = Pages(rows, cells, layout.full_pages_per_slab),
                       sliding =
                           Pages(rows, cells, (1 + full_slabs) * layout.sliding_pages_per_slab);
  BatchBuilder builder(MakeTensor(full.data(), DType::kI32, rows, cells),
                       MakeTensor(sliding.data(), DType::kI32, rows, cells), model.config.window);
  for (int slot = 0; slot < rows; ++slot) {
    const int32_t token = (slot * 7919 + 17) % model.config.vocab_size;
    builder.AddDecode(slot, context - 1, std::array{token});
  }
  Gemma4::Limits limits;
  limits.max_rows = limits.max_output_rows = rows;
  limits.activations = DType::kBf16;
  limits.max_scratch_pages = 1;
  Gemma4 gemma(model.config, model.weights, *ops, arena, limits);
  const Batch placed = ops->PlaceBatch(builder.Build());
  gemma.ForwardPlaced(placed);
  const auto graph = device.Capture([&] { gemma.ForwardPlaced(placed); });
  graph->Launch();
  std::array<double, kRepeats> ms;
  for (double& value : ms)
    value = device.Time([&] {
      for (int i = 0; i < kLaunches; ++i) graph->Launch();
    });
  std::sort(ms.begin(), ms.end());
  return ms[kRepeats / 2] / kLaunches;
}

}  // namespace lapidary
