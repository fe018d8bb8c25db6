#include "ops/slot_states.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <vector>

#include "ops/cpu/cpu_backend.h"
#include "ops/sampling.h"

namespace lapidary {
namespace {

class CpuSlotStates : public SlotStates {
 public:
  CpuSlotStates(int num_slots, int64_t hidden_size)
      : slots_(static_cast<size_t>(num_slots)),
        hidden_size_(static_cast<size_t>(hidden_size)),
        hidden_(slots_.size() * hidden_size_),
        draft_hidden_(slots_.size() * hidden_size_) {}

  void Begin(const SlotStep& step) override {
    for (const SlotBegin& begin : step.begins) {
      Slot& slot = slots_.at(static_cast<size_t>(begin.slot));
      slot = {begin, {}};
    }
    rows_.assign(step.rows.begin(), step.rows.end());
    drafting_.assign(step.drafting.begin(), step.drafting.end());
  }

  void PlaceRows(Tensor tokens, const RowSet& rows, Tensor offsets) override {
    Tensor positions = rows.positions, key_ends = rows.key_ends;
    for (int64_t t = 0; t < rows.num_rows(); ++t) {
      const int32_t offset = offsets.i32()[t];
      if (offset < 0) continue;
      const Slot& slot = slots_.at(static_cast<size_t>(rows.slots.i32()[t]));
      tokens.i32()[t] =
          offset == 0 ? slot.now.newest : slot.drafts.at(static_cast<size_t>(offset - 1));
      positions.i32()[t] = slot.now.length - 1 + offset;
      key_ends.i32()[t] = slot.now.length + offset;
    }
  }

  void Accept(Tensor draws, Tensor hidden) override {
    outcomes_.emplace_back();
    for (const SlotRows& rows : rows_)
      outcomes_.back().push_back(
          AcceptOne(rows, draws.Rows(rows.first_query, rows.num_queries), hidden));
  }

  void SimulateAcceptLength(double length) override { simulated_ = length; }

  DraftRows PlaceDrafts(int back) override {
    for (auto* list : {&tokens_, &positions_, &key_ends_}) list->clear();
    chunks_.assign(drafting_.size(), -1);
    for (size_t i = 0; i < drafting_.size(); ++i) {
      const auto number = static_cast<size_t>(drafting_[i]);
      const SlotBegin& now = slots_.at(number).now;
      tokens_.push_back(now.newest);
      positions_.push_back(now.length - 1 - back);
      key_ends_.push_back(now.length - 1);
      std::memcpy(draft_hidden_.data() + i * hidden_size_, hidden_.data() + number * hidden_size_,
                  hidden_size_ * sizeof(float));
    }
    DraftRows draft;
    draft.tokens = ViewOf(tokens_);
    draft.hidden =
        MakeTensor(draft_hidden_.data(), DType::kF32, static_cast<int64_t>(drafting_.size()),
                   static_cast<int64_t>(hidden_size_));
    draft.rows.positions = ViewOf(positions_);
    draft.rows.key_ends = ViewOf(key_ends_);
    draft.rows.slots = ViewOf(drafting_);
    draft.rows.chunks = ViewOf(chunks_);
    return draft;
  }

  void TakeDrafts(int pass, Tensor best) override {
    CHECK(pass < kMaxDrafts && static_cast<size_t>(best.rows()) <= tokens_.size(),
          "draft {} of {} sequences", pass, best.rows());
    for (int64_t i = 0; i < best.rows(); ++i) {
      const auto place = static_cast<size_t>(i);
      // Of logits that are not finite there is none: a draft may be wrong.
      tokens_[place] = std::max(best.Rows(i, 1).i32()[0], 0);
      slots_.at(static_cast<size_t>(drafting_[place])).drafts.at(static_cast<size_t>(pass)) =
          tokens_[place];
    }
  }

  std::span<const SlotOutcome> Read() override {
    read_ = std::move(outcomes_.front());
    outcomes_.pop_front();
    return read_;
  }

  std::array<int32_t, kMaxDrafts> Drafts(int32_t slot) override {
    return slots_.at(static_cast<size_t>(slot)).drafts;
  }

 private:
  struct Slot {
    SlotBegin now;
    std::array<int32_t, kMaxDrafts> drafts{};
  };

  // How many drafts count as drawn, whatever their rows drew.
  int SimulatedAccepts(const SlotBegin& now, int num_drafts) const {
    const double x = UniformAt(now.seed, now.choice, static_cast<uint64_t>(now.length));
    return std::min(num_drafts, static_cast<int>(simulated_ - 1 + x));
  }

  SlotOutcome AcceptOne(const SlotRows& rows, const Tensor& draws, const Tensor& hidden) {
    Slot& slot = slots_.at(static_cast<size_t>(rows.slot));
    SlotBegin& now = slot.now;
    SlotOutcome outcome;
    const int first_draw = rows.draws ? rows.num_queries - 1 - rows.num_drafts : rows.num_queries;
    const bool simulates = simulated_ > 0 && rows.num_drafts > 0;
    const int accepts = simulates ? SimulatedAccepts(now, rows.num_drafts) : 0;
    for (int i = 0; i < rows.num_queries; ++i) {
      const int place = i - first_draw;  // behind the newest token
      if (place >= 0 && now.length >= now.limit) break;
      const auto draft = static_cast<size_t>(place - 1);
      if (place > 0 && (simulates ? place > accepts : slot.drafts[draft] != now.newest)) break;
      const int32_t* draw = draws.Rows(i, 1).i32();
      outcome.not_finite = draw[1] == 0;
      outcome.exhausted = !outcome.not_finite && place >= 0 && draw[0] < 0;
      if (outcome.not_finite || outcome.exhausted) break;
      ++outcome.num_queries;
      if (place < 0) continue;
      now.newest = simulates && place < accepts ? slot.drafts[draft + 1] : draw[0];
      ++now.length;
      outcome.tokens[static_cast<size_t>(outcome.num_tokens++)] = now.newest;
    }
    if (outcome.num_tokens > 0) {
      if (!hidden.empty() && hidden_size_ > 0)
        std::memcpy(hidden_.data() + static_cast<size_t>(rows.slot) * hidden_size_,
                    hidden.Rows(rows.first_output + outcome.num_queries - 1, 1).f32(),
                    hidden_size_ * sizeof(float));
    } else if (rows.draws && (outcome.not_finite || outcome.exhausted)) {
      // A sequence that ends without a token was planned to be longer: one step more may run for
      // it, whose window begins a row later. What that gives is dropped, any token will do.
      ++now.length;
      now.newest = 0;
    }
    return outcome;
  }

  std::vector<Slot> slots_;
  const size_t hidden_size_;
  double simulated_ = 0;
  std::vector<float> hidden_, draft_hidden_;  // [S,D] behind the newest token; [B,D]
  std::vector<SlotRows> rows_;
  std::vector<int32_t> drafting_, tokens_, positions_, key_ends_, chunks_;
  std::deque<std::vector<SlotOutcome>> outcomes_;
  std::vector<SlotOutcome> read_;
};

}  // namespace

std::unique_ptr<SlotStates> MakeCpuSlotStates(int num_slots, int64_t hidden_size) {
  return std::make_unique<CpuSlotStates>(num_slots, hidden_size);
}

std::unique_ptr<SlotStates> cpu::CpuBackend::MakeSlotStates(int num_slots, int64_t hidden_size) {
  return MakeCpuSlotStates(num_slots, hidden_size);
}

}  // namespace lapidary
