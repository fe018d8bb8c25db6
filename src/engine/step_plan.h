// StepPlan: what one step does, as the scheduler decided it and a rank carries it out. Plain data.
#ifndef LAPIDARY_ENGINE_STEP_PLAN_H_
#define LAPIDARY_ENGINE_STEP_PLAN_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/request.h"
#include "kv/layout.h"
#include "kv/slab_pool.h"
#include "model/drafter.h"

namespace lapidary {

// One choice of one request, unique for the life of the engine: what comes late for a dead one is
// dropped.
using SequenceId = uint64_t;

// What a rank needs to draw a sequence's tokens; it does not change while the sequence lives.
struct SequenceParams {
  SamplingParams sampling;
  uint32_t choice = 0;
  int num_prompt = 0;
  int max_length = 0;             // prompt and generated
  std::vector<int32_t> stop_ids;  // all ids that end it, for min_tokens
};

// A sequence enters a slot with all tokens it has so far.
struct SlotStart {
  int32_t slot = 0;
  SequenceId id = 0;
  std::vector<int32_t> tokens;
  std::shared_ptr<const SequenceParams> params;
};

// A cell of a slot's page table gets a page, or -1.
struct TableChange {
  PageKind kind = PageKind::kFull;
  int32_t slot = 0, cell = 0, page = -1;
};

// Rows of one sequence.
//
// Decode: the newest token and num_rows - 1 drafts, wherever the rank's SlotState says the sequence
// is (the tokens of the step before are not read yet); every row is an output row and is drawn
// from. Chunk: prompt rows first_position and on; the last num_outputs of them are output rows; the
// last is drawn from when `samples`.
struct PlannedRows {
  SequenceId id = 0;
  int32_t slot = 0;
  bool decode = false;
  bool samples = false;
  int32_t first_position = 0;  // chunk only
  int32_t num_rows = 0;
  int32_t num_outputs = 0;
  int32_t num_new_drafts = 0;             // made after the draw, for the next step to verify
  std::vector<SlidingPage> window_pages;  // chunk only: of the cells before it (BatchBuilder)
};

// Applied in this order: freed slots, starts, table changes; then the rows run, decode rows first.
struct StepPlan {
  uint64_t number = 0;
  std::vector<int32_t> freed_slots;
  std::vector<SlotStart> starts;
  std::vector<TableChange> table_changes;
  std::vector<PlannedRows> rows;
  DraftPosition draft_position = DraftPosition::kNewest;
};

// What a rank's step gave for one entry of StepPlan::rows.
struct RowsNews {
  std::vector<int32_t> tokens;          // drawn: 1 .. num_rows for decode, 1 for a last chunk
  std::vector<TokenLogprobs> logprobs;  // one per token, if asked
  std::vector<TokenLogprobs> prompt_logprobs;  // of the prompt tokens that the output rows predict
  int32_t num_drafted = 0, num_accepted = 0;
  bool not_finite = false;  // logits of a row that counts
  bool exhausted = false;   // the masks left no token to draw
};

// In the order of StepPlan::rows.
struct StepNews {
  uint64_t number = 0;
  std::vector<RowsNews> rows;
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_STEP_PLAN_H_
