// EngineLoop: the engine without the model. One thread runs take -> plan -> launch -> read the step
// before -> commit -> deliver over a StepRunner on a thread of its own.
#ifndef LAPIDARY_ENGINE_ENGINE_LOOP_H_
#define LAPIDARY_ENGINE_ENGINE_LOOP_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "engine/drafting.h"
#include "engine/engine.h"
#include "engine/rank.h"
#include "engine/request.h"
#include "engine/scheduler/scheduler.h"

namespace lapidary {

struct LoopOptions {
  int vocab_size = 0;
  int max_queued_requests = 8192;
  SchedulerLimits limits;  // max_length is the context
  KvLayout layout;
  int32_t num_slabs = 0;  // slab 0 included
  std::vector<int32_t> end_ids;
  bool prefix_cache = true;
  bool overlap = true;  // false: each step is read before the next is planned
  DraftOptions drafts;
  int log_interval = 0;  // decode steps a log line; 0: none
};

class EngineLoop {
 public:
  // Throws StartupError when a sequence of the context's length can never run.
  EngineLoop(std::unique_ptr<StepRunner> runner, const LoopOptions& options);
  ~EngineLoop();  // live requests end with kAbort

  // As in Engine; thread-safe.
  Status Submit(Request request, TokenSink sink);
  void Cancel(uint64_t request_id);
  void CancelChoice(uint64_t request_id, int choice);
  int64_t FlushCache();
  EngineStats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_ENGINE_LOOP_H_
