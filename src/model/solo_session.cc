#include "model/solo_session.h"

#include <algorithm>
#include <numeric>

namespace lapidary {

SoloSession::SoloSession(const Checkpoint& target, const Checkpoint* drafter, Ops& ops,
                         const Options& options)
    : target_(target), options_(options) {
  CHECK(options.max_tokens > 0 && options.max_chunk > 0, "{} tokens in chunks of {}",
        options.max_tokens, options.max_chunk);
  const ModelConfig& config = target.config;
  const KvLayout layout = KvLayout::Make(KvShapes(config), config.window, options.dtype);
  const int num_pages = (options.max_tokens + kPageTokens - 1) / kPageTokens;
  // Full pages live in the first slabs, sliding pages in the slabs behind them; slab 0 is reserved.
  const int full_slabs =
      layout.full_pages_per_slab == 0
          ? 0
          : (num_pages + layout.full_pages_per_slab - 1) / layout.full_pages_per_slab;
  const int sliding_slabs =
      layout.sliding_pages_per_slab == 0
          ? 0
          : (num_pages + layout.sliding_pages_per_slab - 1) / layout.sliding_pages_per_slab;
  arena_ = std::make_unique<KvArena>(layout, 1 + full_slabs + sliding_slabs);
  for (int i = 0; i < num_pages; ++i) {
    full_pages_.push_back(FullPage{layout.full_pages_per_slab + i});
    sliding_pages_.push_back(SlidingPage{(1 + full_slabs) * layout.sliding_pages_per_slab + i});
  }
  Gemma4::Limits limits;
  limits.max_rows = limits.max_output_rows = options.max_chunk;
  limits.fast_prefill = options.fast_prefill;
  limits.activations = options.dtype;
  model_ = std::make_unique<Gemma4>(config, target.weights, ops, *arena_, limits);
  if (drafter != nullptr)
    drafter_ = std::make_unique<Drafter>(config, target.weights, drafter->config, drafter->weights,
                                         ops, *arena_, 1);
  Reset();
}

void SoloSession::Reset() {
  length_ = 0;
  arena_->Poison();
}

StepOutput SoloSession::Append(std::span<const int32_t> tokens, bool all_rows) {
  const auto count = static_cast<int32_t>(tokens.size());
  CHECK(count > 0 && count <= options_.max_chunk && length_ + count <= options_.max_tokens,
        "{} tokens after {}", count, length_);
  Batch batch;
  batch.tokens.assign(tokens.begin(), tokens.end());
  batch.positions.resize(tokens.size());
  std::iota(batch.positions.begin(), batch.positions.end(), length_);
  batch.sequences.push_back({0, count, length_, full_pages_.data(), sliding_pages_.data(),
                             static_cast<int32_t>(full_pages_.size())});
  for (int32_t row = all_rows ? 0 : count - 1; row < count; ++row) batch.output_rows.push_back(row);
  length_ += count;
  return model_->Forward(batch);
}

DraftOutput SoloSession::Draft(int32_t token, Tensor hidden, DraftPosition position) {
  CHECK(drafter_ != nullptr && length_ > 0, "no drafter, or nothing to draft after");
  RowSet rows;
  rows.positions = {position == DraftPosition::kNewest ? length_ : length_ - 1};
  rows.key_ends = {length_};
  rows.sequences = {0};
  rows.tables = {{reinterpret_cast<const int32_t*>(full_pages_.data()),
                  reinterpret_cast<const int32_t*>(sliding_pages_.data()),
                  static_cast<int32_t>(full_pages_.size())}};
  return drafter_->Step(std::span(&token, 1), hidden, rows);
}

}  // namespace lapidary
