// SlotStates: what the sequences of the slots are right now, kept where the model works, so that a
// step is queued before the host has read the one before it. Written only by its own calls; each
// joins the queue of the ops it is made by, and the host reads a step's outcome when it likes.
#ifndef LAPIDARY_OPS_SLOT_STATES_H_
#define LAPIDARY_OPS_SLOT_STATES_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "ops/batch.h"
#include "ops/row_set.h"

namespace lapidary {

inline constexpr int kMaxDrafts = 8;  // a burst

// A sequence enters a slot.
struct SlotBegin {
  int32_t slot = 0;
  int32_t length = 0;  // tokens, the last of which is `newest`, if there are any
  int32_t newest = 0;
  int32_t limit = 0;  // no token is taken beyond this length
  uint64_t seed = 0;  // of its draws
  uint32_t choice = 0;
};

// Neighbouring queries of a RowSampler's call, of one sequence, for neighbouring output rows. The
// last num_drafts + 1 of them draw, if any does: behind the newest token, its first draft, ...
struct SlotRows {
  int32_t slot = 0;
  int32_t first_query = 0, num_queries = 0;
  int32_t first_output = 0;  // row of the hidden states
  int32_t num_drafts = 0;    // verified
  bool draws = false;
};

// What a step gave for one SlotRows.
struct SlotOutcome {
  int32_t num_tokens = 0;   // taken
  int32_t num_queries = 0;  // that count: those before the first that was not taken
  bool not_finite = false;  // the logits of the query behind them
  bool exhausted = false;   // that query had nothing to draw
  std::array<int32_t, kMaxDrafts + 1> tokens{};
};

// Which sequences a step is about.
struct SlotStep {
  std::span<const SlotBegin> begins;
  std::span<const SlotRows> rows;
  std::span<const int32_t> drafting;  // slots that get drafts
};

// Rows of a drafting pass, in the order of SlotStep::drafting; on a device behind them padding
// (slots below 0), up to the most there can be.
struct DraftRows {
  Tensor tokens;  // [B] i32
  Tensor hidden;  // [B,D] f32
  RowSet rows;    // without page tables
};

class SlotStates {
 public:
  virtual ~SlotStates() = default;

  // The first call of a step: brings `step` and begins what begins.
  virtual void Begin(const SlotStep& step) = 0;
  // Token, position and key end of rows [T] whose `offsets` [T] i32 is not negative: the offset-th
  // behind the newest token's, whose token is that draft.
  virtual void PlaceRows(Tensor tokens, const RowSet& rows, Tensor offsets) = 0;
  // Takes the tokens drawn by the rows of the step: `draws` [Q,2] i32 of RowSampler::Queue. A row
  // behind a draft counts only if the row before it drew that draft. The state behind the newest
  // token is the row of `hidden` [O,D] f32 that drew it; hidden may be empty.
  virtual void Accept(Tensor draws, Tensor hidden) = 0;
  // For benches of random weights: from now on a burst gives `length` tokens on average, right or
  // wrong; 0: off.
  virtual void SimulateAcceptLength(double length) = 0;
  // The rows that draft behind the newest tokens, `back` positions before theirs. Valid until the
  // step's end; the drafts before are forgotten.
  virtual DraftRows PlaceDrafts(int back) = 0;
  // The pass-th drafts of the first sequences that draft, as many as `best` [B,2] i32 has rows
  // (RowSampler::Best); they are the tokens of the next pass.
  virtual void TakeDrafts(int pass, Tensor best) = 0;
  // What the rows gave, in their order, of the oldest Accept that was not read; waits for it. On a
  // device there are at most two.
  virtual std::span<const SlotOutcome> Read() = 0;
  // What the slot's next step verifies; waits for the device.
  virtual std::array<int32_t, kMaxDrafts> Drafts(int32_t slot) = 0;
};

// The definition. hidden_size: D, 0 without a drafter.
std::unique_ptr<SlotStates> MakeCpuSlotStates(int num_slots, int64_t hidden_size);

}  // namespace lapidary

#endif  // LAPIDARY_OPS_SLOT_STATES_H_
