// EngineLoop: the engine without the model. One thread runs take -> plan -> forward -> sample ->
// commit -> deliver over a StepRunner.
#ifndef LAPIDARY_ENGINE_ENGINE_LOOP_H_
#define LAPIDARY_ENGINE_ENGINE_LOOP_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "model/gemma4.h"

namespace lapidary {

// What the loop needs of a model. Called on the engine thread only.
class StepRunner {
 public:
  virtual ~StepRunner() = default;
  // Logits [O,V] f32 of batch.output_rows, valid until the next call.
  virtual StepOutput Forward(const Batch& batch) = 0;
};

struct LoopOptions {
  int vocab_size = 0;
  int max_model_len = 0;
  int max_queued_requests = 8192;
  SchedulerLimits limits;
  KvLayout layout;
  int32_t num_slabs = 0;  // slab 0 included
  std::vector<int32_t> end_ids, suppress_ids;
};

class EngineLoop {
 public:
  // Throws StartupError when a sequence of max_model_len can never run.
  EngineLoop(std::unique_ptr<StepRunner> runner, const LoopOptions& options);
  ~EngineLoop();  // live requests end with kAbort

  // As in Engine; thread-safe.
  Status Submit(Request request, TokenSink sink);
  void Cancel(uint64_t request_id);
  void CancelChoice(uint64_t request_id, int choice);
  EngineStats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_ENGINE_LOOP_H_
