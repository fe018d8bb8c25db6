#include "model/solo_session.h"

#include <algorithm>

namespace lapidary {

SoloSession::SoloSession(const Checkpoint& target, const Checkpoint* drafter, Ops& ops,
                         const Options& options)
    : target_(target), device_(ops.device()), options_(options) {
  CHECK(options.max_tokens > 0 && options.max_chunk > 0, "{} tokens in chunks of {}",
        options.max_tokens, options.max_chunk);
  const ModelConfig& config = target.config;
  const bool folds = ChooseKvFold(config, options.kv_fold, !device_.is_host()).folds;
  const KvLayout layout = KvLayout::Make(KvShapes(config, folds), config.window, options.dtype);
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
  arena_ = std::make_unique<KvArena>(layout, 1 + full_slabs + sliding_slabs, device_);
  for (int i = 0; i < num_pages; ++i) {
    full_pages_.push_back(layout.full_pages_per_slab + i);
    sliding_pages_.push_back((1 + full_slabs) * layout.sliding_pages_per_slab + i);
  }
  builder_ = std::make_unique<BatchBuilder>(
      MakeTensor(full_pages_.data(), DType::kI32, 1, num_pages),
      MakeTensor(sliding_pages_.data(), DType::kI32, 1, num_pages), config.window);
  Gemma4::Limits limits;
  limits.max_rows = limits.max_output_rows = options.max_chunk;
  limits.fast_prefill = options.fast_prefill;
  limits.activations = options.dtype;
  // A chunk touches one page more at the worst alignment.
  limits.max_scratch_pages =
      1 + BatchBuilder::ScratchPages(config.window, config.window, options.max_chunk + kPageTokens);
  model_ = std::make_unique<Gemma4>(config, target.weights, ops, *arena_, limits);
  if (drafter != nullptr) {
    drafter_ = std::make_unique<Drafter>(
        config, target.weights, drafter->config, drafter->weights, ops, *arena_,
        Drafter::Limits{1, options.dtype, model_->logits_memory()});
    state_ = Buffer(device_, 1, config.hidden, DType::kF32);
  }
  Reset();
}

void SoloSession::Reset() {
  length_ = 0;
  arena_->Poison();
}

std::vector<SlidingPage> SoloSession::WindowPages() const {
  std::vector<SlidingPage> pages;
  for (int cell = BatchBuilder::FirstCell(target_.config.window, length_);
       cell * kPageTokens < length_; ++cell)
    pages.push_back(SlidingPage{sliding_pages_[static_cast<size_t>(cell)]});
  return pages;
}

StepOutput SoloSession::Append(std::span<const int32_t> tokens, bool all_rows) {
  const auto count = static_cast<int32_t>(tokens.size());
  CHECK(count > 0 && count <= options_.max_chunk && length_ + count <= options_.max_tokens,
        "{} tokens after {}", count, length_);
  builder_->Clear();
  // One token reads its window from pages, as in decoding; more go through scratch.
  if (count == 1)
    builder_->AddDecode(0, length_, tokens);
  else
    builder_->AddChunk(0, length_, tokens, all_rows ? count : 1, WindowPages());
  length_ += count;
  const StepOutput out = model_->Forward(builder_->Build());
  return {hidden_.Of(device_, out.hidden), logits_.Of(device_, out.logits)};
}

DraftOutput SoloSession::Draft(int32_t token, Tensor hidden, DraftPosition position) {
  CHECK(drafter_ != nullptr && length_ > 0, "no drafter, or nothing to draft after");
  int32_t at = position == DraftPosition::kNewest ? length_ : length_ - 1;
  int32_t slot = 0, chunk = -1;
  const auto one = [](int32_t& value) { return MakeTensor(&value, DType::kI32, 1); };
  const auto num_pages = static_cast<int64_t>(full_pages_.size());
  const RowSet rows{one(at),
                    one(length_),
                    one(slot),
                    one(chunk),
                    MakeTensor(full_pages_.data(), DType::kI32, 1, num_pages),
                    MakeTensor(sliding_pages_.data(), DType::kI32, 1, num_pages),
                    {}};
  const Tensor state = state_.View(1, hidden.cols());
  device_.CopyIn(state.data, hidden.f32(), state.num_elements() * SizeOf(DType::kF32));
  const DraftOutput out = drafter_->Step(one(token), state, rows);
  return {draft_logits_.Of(device_, out.logits), draft_hidden_.Of(device_, out.hidden)};
}

}  // namespace lapidary
