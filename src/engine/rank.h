// StepRunner: carries out step plans in order. Rank: the real one, over a StepModel. It alone knows
// how long a sequence is right now: the scheduler plans a step ahead.
#ifndef LAPIDARY_ENGINE_RANK_H_
#define LAPIDARY_ENGINE_RANK_H_

#include <memory>
#include <span>
#include <vector>

#include "engine/step_model.h"
#include "engine/step_plan.h"
#include "ops/batch.h"
#include "ops/row_sampler.h"

namespace lapidary {

class StepRunner {
 public:
  virtual ~StepRunner() = default;
  virtual StepNews Run(const StepPlan& plan) = 0;
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
  StepNews Run(const StepPlan& plan) override;
  int64_t last_beat_ms() const override { return model_->last_beat_ms(); }

 private:
  // Written only here: what a step made known. The newest token's K and V are not computed yet.
  struct SlotState {
    std::shared_ptr<const SequenceParams> params;
    std::vector<int32_t> tokens;
    std::vector<int32_t> drafts;
  };
  void Apply(const StepPlan& plan);
  void BuildBatch(const StepPlan& plan);
  // What is asked of the output rows of `rows`, the first of which is output row `first_output`.
  void AddQueries(const PlannedRows& rows, int64_t first_output);
  // The row draws the token at position `length`.
  void AddDraw(const SlotState& slot, size_t length, int64_t row, bool continues);
  SamplingRow SamplingOf(const SlotState& slot, size_t length) const;
  // Takes the answers to what AddQueries asked about these rows.
  RowsNews Accept(const PlannedRows& rows, std::span<const RowQuery> queries,
                  std::span<RowAnswer> answers, const Tensor& hidden);
  // How many drafts count as drawn, whatever their rows drew.
  int SimulatedAccepts(const SlotState& slot, int num_drafts) const;
  bool TakeAnswer(SlotState& slot, const RowQuery& query, RowAnswer& answer, RowsNews& news) const;
  void Draft(const StepPlan& plan);
  // The best ids of rows [0, count).
  std::span<const RowAnswer> BestDrafts(const Tensor& logits, int64_t count);
  Tensor Table(PageKind kind);

  std::unique_ptr<StepModel> model_;
  const RankOptions options_;
  const size_t hidden_;
  std::vector<SlotState> slots_;
  std::vector<SequenceId> owners_;  // [S], for messages
  std::vector<int32_t> tables_[2];  // by PageKind, [S,P]
  BatchBuilder builder_;
  std::vector<RowQuery> queries_;
  std::vector<float> states_;        // [S,D] the target's hidden state behind the newest token
  std::vector<float> draft_states_;  // [B,D]
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_RANK_H_
