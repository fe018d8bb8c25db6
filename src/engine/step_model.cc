#include "engine/step_model.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>
#include <vector>

#include "base/log.h"
#include "ops/cpu/cpu_ops.h"

namespace lapidary {
namespace {

int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Page tables whose cells all name the first page of a slab: for steps of which only the sizes
// matter.
class Tables {
 public:
  explicit Tables(const StepModelOptions& options)
      : slots_(options.max_running),
        cells_(options.table_cells),
        full_(static_cast<size_t>(slots_ * cells_), options.layout.full_pages_per_slab),
        sliding_(full_.size(), options.layout.sliding_pages_per_slab) {}
  Tensor full() { return MakeTensor(full_.data(), DType::kI32, slots_, cells_); }
  Tensor sliding() { return MakeTensor(sliding_.data(), DType::kI32, slots_, cells_); }

 private:
  int64_t slots_, cells_;
  std::vector<int32_t> full_, sliding_;
};

}  // namespace

Gemma4StepModel::Gemma4StepModel(std::unique_ptr<Checkpoint> target,
                                 std::unique_ptr<Checkpoint> drafter,
                                 const StepModelOptions& options)
    : target_(std::move(target)),
      drafter_checkpoint_(std::move(drafter)),
      ops_(target_->ops != nullptr ? target_->ops : MakeCpuOps(options.num_threads)) {
  if (options.batch_invariant) ops_->MakeBatchInvariant();
  slot_states_ = ops_->MakeSlotStates(options.max_running, has_drafter() ? hidden() : 0);
  row_sampler_ = ops_->MakeRowSampler(vocab_size(),
                                      std::max(options.limits.max_output_rows, options.max_running),
                                      slot_states_.get());
  Build(options);
}

void Gemma4StepModel::Build(const StepModelOptions& options) {
  options_ = options;
  graphs_.reset();
  drafter_.reset();
  model_.reset();
  arena_.reset();
  arena_ = std::make_unique<KvArena>(options.layout, options.num_slabs, ops_->device());
  model_ =
      std::make_unique<Gemma4>(target_->config, target_->weights, *ops_, *arena_, options.limits);
  model_->SetLayerHook([this] { last_beat_ms_ = NowMs(); });
  if (drafter_checkpoint_ == nullptr) return;
  drafter_ = std::make_unique<Drafter>(
      target_->config, target_->weights, drafter_checkpoint_->config, drafter_checkpoint_->weights,
      *ops_, *arena_, Drafter::Limits{options.max_running, ops_->dtype(), model_->logits_memory()});
}

void Gemma4StepModel::Restart(const StepModelOptions& options) {
  Build(options);
  const auto start = NowMs();
  graphs_ = std::make_unique<DecodeGraphs>(*model_, drafter_.get(), *ops_, *slot_states_,
                                           options.max_running, options.max_drafts,
                                           options.limits.max_output_rows);
  Tables tables(options);
  const int count = graphs_->Capture(tables.full(), tables.sliding());
  const int64_t spent_ms = NowMs() - start;
  const auto [one_ms, most_ms] = graphs_->step_ms();
  LogInfo(
      "{} graphs of decode steps in {} ms: {:.3f} ms for one row without keys, {:.3f} ms for the "
      "most",
      count, spent_ms, one_ms, most_ms);
  const Device& device = ops_->device();
  const auto weights = static_cast<int64_t>(
      target_->weight_bytes + (has_drafter() ? drafter_checkpoint_->weight_bytes : 0));
  const int64_t cache = options.layout.slab_bytes * options.num_slabs, left = device.free_bytes();
  const auto gib = [](int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); };
  LogInfo("memory: weights {:.2f} GiB, cache {:.2f}, all else in use {:.2f}, free {:.2f}",
          gib(weights), gib(cache), gib(device.total_bytes() - left - weights - cache), gib(left));
}

int64_t Gemma4StepModel::WarmUp() {
  Tables tables(options_);
  BatchBuilder builder(tables.full(), tables.sliding(), window());
  // As many rows as a step may have, whatever their prompts' lengths: what ops keep for themselves
  // has its size from then on. Then of all numbers of rows that choose a product's kernel, since
  // its first use may take memory.
  const int longest = (options_.table_cells - 1) * kPageTokens, most = options_.limits.max_rows;
  const auto read = [&](int num_rows) {
    for (int slot = 0, left = num_rows; slot < options_.max_running && left > 0;
         ++slot, left -= longest)
      builder.AddChunk(
          slot, 0, std::vector<int32_t>(static_cast<size_t>(std::min(left, longest)), 0), 1, {});
    Forward(builder.Build());
    builder.Clear();
  };
  read(most);
  for (const int num_rows : ops_->product_rows())
    if (num_rows < most) read(num_rows);
  const int rows = 1 + options_.max_drafts;
  const std::vector<int32_t> tokens(static_cast<size_t>(rows), 0);
  for (int slot = 0;
       slot < options_.max_running && (slot + 1) * rows <= options_.limits.max_output_rows; ++slot)
    builder.AddDecode(slot, 0, tokens);
  const StepOutput output = Forward(builder.Build());
  std::vector<RowQuery> queries(3);
  for (RowQuery& query : queries) query.draws = query.wants_logprobs = true;
  queries[0].sampling.temperature = 0;
  queries[1].sampling.top_k = 64;
  row_sampler_->Sample(output.logits, queries);
  if (drafter_ != nullptr) WarmUpDrafter();
  ops_->device().Synchronize();
  // Graphs, and kernels that a later driver call may load.
  constexpr int64_t kSpareBytes = int64_t{1} << 30;
  return ops_->device().free_bytes() - kSpareBytes;
}

void Gemma4StepModel::WarmUpDrafter() {
  std::vector<int32_t> slots(static_cast<size_t>(options_.max_running));
  std::iota(slots.begin(), slots.end(), 0);
  slot_states_->Begin({{}, {}, slots});
  const DraftRows draft = slot_states_->PlaceDrafts(0);
  const int64_t count = options_.max_running;
  const RowSet rows{draft.rows.positions.Rows(0, count),
                    draft.rows.key_ends.Rows(0, count),
                    draft.rows.slots.Rows(0, count),
                    draft.rows.chunks.Rows(0, count),
                    {},
                    {},
                    {}};
  const DraftOutput output = Draft(draft.tokens.Rows(0, count), draft.hidden.Rows(0, count), rows);
  slot_states_->TakeDrafts(0, row_sampler_->Best(output.logits, {}));
}

StepOutput Gemma4StepModel::Forward(const Batch& batch) {
  StepOutput output;
  const Batch placed = graphs_ != nullptr ? graphs_->Place(batch) : ops_->PlaceBatch(batch);
  full_pages_ = placed.rows.full_pages;
  sliding_pages_ = placed.rows.sliding_pages;
  if (!is_host()) {
    slot_states_->PlaceRows(placed.tokens, placed.rows, placed.offsets);
    if (!batch.rows.spans.empty())
      slot_states_->PlaceRows(placed.output_tokens, placed.output, placed.output_offsets);
  }
  if (graphs_ == nullptr || !graphs_->Run(output)) return model_->ForwardPlaced(placed);
  last_beat_ms_ = NowMs();
  return output;
}

DraftOutput Gemma4StepModel::Draft(Tensor tokens, Tensor hidden, const RowSet& rows) {
  DraftOutput output;
  if (graphs_ != nullptr && graphs_->RunDraft(tokens.rows(), output)) return output;
  RowSet placed = rows;
  placed.full_pages = full_pages_;
  placed.sliding_pages = sliding_pages_;
  return drafter_->StepPlaced(tokens, hidden, placed);
}

void Gemma4StepModel::PoisonWorkspaces() {
  model_->Poison();
  if (drafter_ != nullptr) drafter_->Poison();
}

}  // namespace lapidary
