// Where the sequences of the slots are: kernels that move them on between two forwards, and place
// rows by them. ops/slot_states.h defines what they do.
#ifndef LAPIDARY_KERNELS_SAMPLING_SLOT_STATES_H_
#define LAPIDARY_KERNELS_SAMPLING_SLOT_STATES_H_

#include <cstdint>

#include "kernels/common/launch.h"
#include "kernels/sampling/row_sampling.h"

namespace lapidary::kernels {

inline constexpr int kMaxSlotDrafts = 8;

struct SlotState {
  uint64_t seed;
  uint32_t choice;
  int32_t length, newest, limit;
  int32_t drafts[kMaxSlotDrafts];
};
struct SlotBeginning {
  SlotState state;
  int32_t slot;
};
void LaunchBeginSlots(SlotState* states, const SlotBeginning* begins, int count, Stream stream);

struct PlaceSlotRowsParams {
  const SlotState* states = nullptr;
  const int32_t* slots = nullptr;    // [T]
  const int32_t* offsets = nullptr;  // [T] behind the newest token; negative: the row stays
  int32_t *tokens = nullptr, *positions = nullptr, *key_ends = nullptr;  // [T]
  int num_rows = 0;
};
void LaunchPlaceSlotRows(const PlaceSlotRowsParams& params, Stream stream);

// The uniform numbers of tasks that name a slot, at the positions of their tokens.
void LaunchPlaceUniforms(RowTask* tasks, int count, const SlotState* states, Stream stream);

struct AcceptEntry {
  int32_t slot, first_query, num_queries, first_output, num_drafts, draws;
};
struct AcceptOutcome {
  int32_t num_tokens, num_queries, not_finite, exhausted;
  int32_t tokens[kMaxSlotDrafts + 1];
};
struct AcceptParams {
  SlotState* states = nullptr;
  const AcceptEntry* entries = nullptr;
  AcceptOutcome* outcomes = nullptr;  // [entries]
  const RowResult* draws = nullptr;   // of the queries
  const float* hidden = nullptr;      // [O,D] or null
  float* slot_hidden = nullptr;       // [S,D]
  int64_t hidden_stride = 0;
  int num_entries = 0, hidden_size = 0;
  double simulated = 0;  // accept length, 0: off
};
void LaunchAccept(const AcceptParams& params, Stream stream);

struct PlaceDraftsParams {
  const SlotState* states = nullptr;
  const int32_t* drafting = nullptr;  // slots
  const float* slot_hidden = nullptr;
  int32_t *tokens = nullptr, *positions = nullptr, *key_ends = nullptr, *slots = nullptr,
          *chunks = nullptr;  // [max rows]
  float* hidden = nullptr;    // [max rows,D]
  int num_drafting = 0, max_rows = 0, hidden_size = 0;
  int back = 0;
};
void LaunchPlaceDrafts(const PlaceDraftsParams& params, Stream stream);

struct TakeDraftsParams {
  SlotState* states = nullptr;
  const int32_t* drafting = nullptr;
  const RowResult* best = nullptr;  // [count]
  int32_t* tokens = nullptr;
  int count = 0, pass = 0;
};
void LaunchTakeDrafts(const TakeDraftsParams& params, Stream stream);

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_SAMPLING_SLOT_STATES_H_
