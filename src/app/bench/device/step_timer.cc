#include "app/bench/device/step_timer.h"

#include <algorithm>
#include <array>

#include "base/measure.h"
#include "base/result.h"
#include "ops/timing.h"

namespace lapidary {
namespace {

constexpr int kSamples = 5, kMaxLaunches = 20;
constexpr double kSampleMs = 20;
constexpr int64_t kSpareBytes = int64_t{2} << 30;  // for workspaces of ops
constexpr int kFiniteByte = 0x3c;                  // any bf16 of it is 0.011, any f32 as well

Gemma4::Limits StepLimits(const Ops& ops, int max_batch) {
  Gemma4::Limits limits;
  limits.max_rows = limits.max_output_rows = max_batch;
  limits.activations = ops.dtype();
  limits.max_scratch_pages = 1;
  return limits;
}

double Bytes(const LinearWeight& weight) {
  return weight.empty() ? 0 : 2.0 * static_cast<double>(weight.rows() * weight.cols());
}

double ProductBytes(const ModelWeights& weights) {
  double bytes = Bytes(weights.ple_model_projection) + Bytes({weights.embed});
  for (const LayerWeights& layer : weights.layers)
    for (const LinearWeight* weight : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down,
                                       &layer.ple_gate, &layer.ple_projection})
      bytes += Bytes(*weight);
  return bytes;
}

}  // namespace

StepTimer::StepTimer(const Checkpoint& model, Ops& ops, bool folds, int max_batch, int max_context)
    : model_(model),
      ops_(ops),
      max_batch_(max_batch),
      num_cells_(max_context / kPageTokens + 1),
      layout_(KvLayout::Make(KvShapes(model.config, folds), model.config.window, ops.dtype())),
      window_cells_(model.config.window / kPageTokens + 2),
      full_pages_(static_cast<size_t>(max_batch) * static_cast<size_t>(num_cells_)),
      sliding_pages_(full_pages_.size()) {
  const Gemma4::Limits limits = StepLimits(ops, max_batch);
  const int64_t free =
      ops.device().free_bytes() - Gemma4::WorkspaceBytes(model.config, limits) - kSpareBytes;
  num_slabs_ = std::min(1 + NumSlabs(max_batch, max_context), free / layout_.slab_bytes);
  if (num_slabs_ < 2) throw StartupError("the model leaves no memory for a KV cache");
  arena_ = std::make_unique<KvArena>(layout_, static_cast<int32_t>(num_slabs_), ops.device());
  ops.device().Fill(arena_->layer(0).base, kFiniteByte, num_slabs_ * layout_.slab_bytes);
  const auto table = [&](std::vector<int32_t>& pages) {
    return MakeTensor(pages.data(), DType::kI32, max_batch_, num_cells_);
  };
  builder_ = std::make_unique<BatchBuilder>(table(full_pages_), table(sliding_pages_),
                                            model.config.window);
  gemma_ = std::make_unique<Gemma4>(model.config, model.weights, ops, *arena_, limits);
}

int64_t StepTimer::NumSlabs(int batch, int context) const {
  const int64_t cells = context / kPageTokens + 1, sequences = batch;
  const auto slabs = [](int64_t pages, int64_t per_slab) {
    return per_slab == 0 ? 0 : (pages + per_slab - 1) / per_slab;
  };
  return slabs(sequences * cells, layout_.full_pages_per_slab) +
         slabs(sequences * std::min<int64_t>(cells, window_cells_), layout_.sliding_pages_per_slab);
}

// Each sequence has pages of its own: full ones, then sliding ones, which come again behind the
// window.
Batch StepTimer::Place(int batch, int context) {
  CHECK(batch <= max_batch_ && context / kPageTokens < num_cells_ && Fits(batch, context),
        "a step of {} sequences of {} keys", batch, context);
  const int cells = context / kPageTokens + 1, sliding_cells = std::min(cells, window_cells_);
  const int first_full = layout_.full_pages_per_slab,
            full_slabs = first_full == 0 ? 0 : (batch * cells + first_full - 1) / first_full,
            first_sliding = (1 + full_slabs) * layout_.sliding_pages_per_slab;
  builder_->Clear();
  for (int slot = 0; slot < batch; ++slot) {
    for (int cell = 0; cell < cells; ++cell) {
      const auto place =
          static_cast<size_t>(slot) * static_cast<size_t>(num_cells_) + static_cast<size_t>(cell);
      full_pages_[place] = first_full + slot * cells + cell;
      sliding_pages_[place] = first_sliding + slot * sliding_cells + cell % sliding_cells;
    }
    const int32_t token = (slot * 7919 + 17) % model_.config.vocab_size;
    builder_->AddDecode(slot, context - 1, std::array{token});
  }
  return ops_.PlaceBatch(builder_->Build());
}

std::unique_ptr<Graph> StepTimer::Capture(const Batch& placed) {
  gemma_->ForwardPlaced(placed);
  ops_.device().Synchronize();
  std::unique_ptr<Graph> graph =
      ops_.device().Capture([this, &placed] { gemma_->ForwardPlaced(placed); });
  graph->Launch();
  return graph;
}

double StepTimer::Milliseconds(Graph& graph, int launches) const {
  return ops_.device().Time([&] {
    for (int i = 0; i < launches; ++i) graph.Launch();
  }) / launches;
}

double StepTimer::MeasureStep(int batch, int context) {
  const Batch placed = Place(batch, context);
  const std::unique_ptr<Graph> graph = Capture(placed);
  const int launches =
      std::clamp(static_cast<int>(kSampleMs / Milliseconds(*graph, 1)), 1, kMaxLaunches);
  std::vector<double> ms;
  ms.reserve(kSamples);
  for (int i = 0; i < kSamples; ++i) ms.push_back(Milliseconds(*graph, launches));
  return Median(ms);
}

ProductTime StepTimer::MeasureProducts(int batch, int context) {
  const Batch placed = Place(batch, context);
  gemma_->ForwardPlaced(placed);  // every buffer holds something finite
  LeaveOut(ops_, {.experts = true});
  const std::unique_ptr<Graph> with = Capture(placed);
  LeaveOut(ops_, {.products = true, .experts = true});
  const std::unique_ptr<Graph> without = Capture(placed);
  LeaveOut(ops_, {});
  const int launches =
      std::clamp(static_cast<int>(kSampleMs / Milliseconds(*with, 1)), 1, kMaxLaunches);
  std::vector<double> differences;
  differences.reserve(kSamples);
  for (int i = 0; i < kSamples; ++i)
    differences.push_back(Milliseconds(*with, launches) - Milliseconds(*without, launches));
  return {Median(differences), ProductBytes(model_.weights)};
}

}  // namespace lapidary
