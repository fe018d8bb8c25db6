// FaultyRunner: the real rank over a real model, with faults planted where the device would have
// them. It learns all it needs from the step plans; the engine knows nothing of it.
#ifndef LAPIDARY_TESTS_CROWD_FAULTY_RUNNER_H_
#define LAPIDARY_TESTS_CROWD_FAULTY_RUNNER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine_loop.h"
#include "engine/rank.h"

namespace lapidary {

struct Faults {
  // Fills with NaN: before each step all activations, scratch, and every page that enters a table
  // without content; if there is no prefix cache (a page outside the tables is then free), every
  // page that leaves the last table.
  bool poison_fresh = false, poison_freed = false;
  // What the drafter says: its own mind, NaN, always id 3, always the last id, or always right, as
  // far as `answers` (by seed: prompt and answer) goes.
  enum class Drafts : uint8_t { kOwn, kNaN, kConstant, kLastId, kRight } drafts = Drafts::kOwn;
  std::map<uint64_t, std::vector<int32_t>> answers;
  // From its first row at or behind `position`, the logits of the request with this seed have a
  // NaN; or the K of its first full page, or its newest sliding page.
  enum class Plant : uint8_t { kNone, kLogits, kFullPage, kSlidingPage } plant = Plant::kNone;
  uint64_t victim_seed = 0;
  int position = 0;
};

struct FaultyEngine {
  std::unique_ptr<EngineLoop> loop;
  std::shared_ptr<std::atomic<int64_t>> num_poisoned;  // pages
};

// As MakeEngine, with max_running_requests, chunk_tokens, reserved_output_tokens, prefix_cache,
// overlap, num_draft_tokens >= 0 and draft_position out of `options`.
FaultyEngine MakeFaultyEngine(const std::string& name, const EngineOptions& options, int num_slabs,
                              Faults faults);

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_CROWD_FAULTY_RUNNER_H_
