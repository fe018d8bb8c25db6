// StepRunner: carries out step plans in order. Rank: the real one, over a StepModel. What its
// sequences are right now it leaves to SlotStates, beside the model: a step is queued while the one
// before it runs, and the host reads outcomes when they are there.
#ifndef LAPIDARY_ENGINE_RANK_H_
#define LAPIDARY_ENGINE_RANK_H_

#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "engine/step_model.h"
#include "engine/step_plan.h"
#include "ops/batch.h"
#include "ops/row_sampler.h"
#include "ops/slot_states.h"

namespace lapidary {

class StepRunner {
 public:
  virtual ~StepRunner() = default;
  virtual void Launch(const StepPlan& plan) = 0;
  // Of the oldest plan that was launched and not read; waits for it.
  virtual StepNews Read() = 0;
  // Plans that may be launched and not read.
  virtual int depth() const { return 1; }
  // When it last moved on, on the steady clock, 0: unknown; thread-safe.
  virtual int64_t last_beat_ms() const { return 0; }
};

struct RankOptions {
  int max_running = 0;
  int32_t table_cells = 0;             // of each slot
  std::vector<int32_t> suppress_ids;   // never sampled, never drafted
  double simulated_accept_length = 0;  // as EngineOptions
};

class Rank : public StepRunner {
 public:
  Rank(std::unique_ptr<StepModel> model, const RankOptions& options);
  void Launch(const StepPlan& plan) override;
  StepNews Read() override;
  int depth() const override { return model_->is_host() ? 1 : 2; }
  int64_t last_beat_ms() const override { return model_->last_beat_ms(); }

 private:
  // What the host knows of a sequence.
  struct Slot {
    std::shared_ptr<const SequenceParams> params;
    std::vector<int32_t> tokens;  // as far as steps were read
    int num_unread = 0;           // tokens that unread steps add at most
    int num_drafts = 0;           // made for its next step
    int num_assumed = 0;          // drafts behind `tokens` while queries are made
    uint64_t number = 0;          // of the sequence in this slot: one begun later has another
  };
  // A launched plan.
  struct Unread {
    struct Rows {
      uint64_t slot_number;
      SlotRows rows;
      int most_tokens;
    };
    uint64_t number = 0;
    std::vector<Rows> rows;
    uint64_t sampler_call = 0;          // 0: nobody asked for log probabilities
    std::vector<uint8_t> is_draw;       // of each query
    std::vector<uint8_t> has_logprobs;  // likewise
  };

  void Apply(const StepPlan& plan);
  void Begin(const SlotStart& start);
  // Drawing from these rows takes the tokens before them.
  bool NeedsHistory(const PlannedRows& rows) const;
  void BuildBatch(const StepPlan& plan);
  void AddRows(const PlannedRows& rows);
  // What is asked of the output rows of `rows`, the first of which is output row `first_output`.
  void AddQueries(const PlannedRows& rows, int64_t first_output);
  void AddDraws(const PlannedRows& rows, int64_t first_output);
  void ForgetAssumed(const StepPlan& plan);
  // The row draws behind the sequence's first `length` tokens, which are known if has_history.
  RowQuery DrawOf(const Slot& slot, size_t length, bool has_history) const;
  // The slots that get drafts, longest bursts first, so that passes work on shrinking prefixes.
  void SortBursts(const StepPlan& plan);
  void Draft(const StepPlan& plan);
  // Reads the oldest unread step from the device.
  void Collect();
  RowsNews NewsOf(const Unread& step, const Unread::Rows& rows, const SlotOutcome& outcome,
                  std::span<RowAnswer> answers);
  Slot& slot(int32_t number) { return slots_.at(static_cast<size_t>(number)); }
  Tensor Table(PageKind kind);

  std::unique_ptr<StepModel> model_;
  SlotStates& states_;
  const RankOptions options_;
  std::vector<Slot> slots_;
  std::vector<SequenceId> owners_;  // [S], for messages
  std::vector<int32_t> tables_[2];  // by PageKind, [S,P]
  uint64_t num_begun_ = 0;
  BatchBuilder builder_;

  // Of the step being launched.
  std::vector<SlotBegin> begins_;
  std::vector<SlotRows> rows_;
  std::vector<RowQuery> queries_;
  std::vector<const PlannedRows*> bursts_;
  std::vector<int32_t> drafting_;

  std::deque<Unread> unread_;
  std::deque<StepNews> news_;  // collected, not read
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_RANK_H_
