// Sequence: one choice of one request as the scheduler knows it.
#ifndef LAPIDARY_ENGINE_SEQUENCE_H_
#define LAPIDARY_ENGINE_SEQUENCE_H_

#include <algorithm>
#include <list>
#include <utility>
#include <vector>

#include "engine/scheduler/scheduler.h"

namespace lapidary {

// What each step looks at lies together: of a thousand sequences it comes from far caches.
struct alignas(64) Scheduler::Sequence {
  std::vector<int32_t> tokens;  // committed
  // While it runs.
  int32_t slot = -1;         // -1: waits
  int prefill_end = 0;       // its tokens at admission
  int prefilled = 0;         // of these, planned so far
  int unread_max = 0;        // tokens the newest step may add, at least 1; 0: it is committed
  uint64_t unread_step = 0;  // the newest step that draws for it
  int drafts_ready = 0;      // made by the newest step
  int decode_rows = 0;       // of the plan in the making
  // Of the cells below, [0, num_full) have a full page, [window_begin, sliding_end) a sliding page;
  // [sliding_begin, window_begin) may have one, for the prefix cache, until it is registered.
  int num_full = 0, sliding_begin = 0, window_begin = 0, sliding_end = 0;
  bool finished = false, failed = false;
  std::vector<PrefixNode*> nodes;  // of the cells that are registered
  NewSequence spec;                // without its prompt

  int num_prompt = 0;
  std::pair<int, int64_t> order;  // place among those who wait
  int cached_tokens = -1;         // -1: never admitted
  int retractions = 0, overtaken = 0;
  int computed_before = 0;  // tokens computed at the last retraction
  int scored = 0;           // prompt rows whose logits were planned
  std::list<Sequence*>::iterator place;
  // Pages by cell.
  std::vector<FullPage> full;
  std::vector<SlidingPage> sliding;
  std::vector<std::pair<int, int>> kept_windows;  // cells [first, second) worth keeping
  int num_paid = 0;                               // sliding pages it pays for (Scheduler::payers_)
  PageCount reserved, promised;

  SequenceId id() const { return spec.id; }
  bool runs() const { return slot >= 0; }
  int length() const { return static_cast<int>(tokens.size()); }
  int least_length() const { return length() + (unread_max > 0 ? 1 : 0); }
  int most_length() const { return length() + unread_max; }
  bool in_prefill() const { return prefilled < prefill_end; }
  bool draws() const { return length() < spec.max_tokens; }  // else it is only scored
  bool scoring() const { return spec.score_prompt && scored < num_prompt; }
  bool overgrown() const { return num_full > reserved.full; }
  bool keeps(int cell) const {
    return std::any_of(kept_windows.begin(), kept_windows.end(), [cell](const auto& window) {
      return window.first <= cell && cell < window.second;
    });
  }
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_SEQUENCE_H_
