// Scheduler: which rows run in the next step and which pages they own. Pure: no clock, no thread,
// no device. First come, first served; a step mixes decode rows and prefill chunks.
#ifndef LAPIDARY_ENGINE_SCHEDULER_H_
#define LAPIDARY_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <vector>

#include "kv/layout.h"
#include "kv/slab_pool.h"
#include "ops/batch.h"

namespace lapidary {

using SequenceId = uint64_t;

// One choice of one request.
struct NewSequence {
  SequenceId id = 0;
  std::vector<int32_t> prompt;
  int max_tokens = 0;  // prompt and generated; at most the context
  bool score_prompt = false;
};

// Rows of one sequence in a step. Its output rows are output positions first_position + num_rows -
// num_outputs and on; the last of them is drawn from when `samples`.
struct PlannedRows {
  SequenceId id = 0;
  int first_position = 0, num_rows = 0;
  int first_output = 0, num_outputs = 0;  // rows of StepOutput
  bool samples = false;
};

// Tables in `batch` stay valid until the next Plan.
struct StepPlan {
  std::vector<PlannedRows> rows;
  Batch batch;
};

// What the step gave: `token` counts only where the plan said `samples`.
struct SequenceResult {
  SequenceId id = 0;
  int32_t token = -1;
  bool finished = false;
};
using StepResult = std::vector<SequenceResult>;  // one per planned rows, in their order

struct SchedulerLimits {
  int max_running = 64;
  int chunk_tokens = 256;
  int reserved_output = 4096;  // beyond it a sequence grows page by page
};

// The memory formula: what the start-up plan, Submit and admission count with.
class KvFormula {
 public:
  KvFormula(const KvLayout& layout, int chunk_tokens)
      : layout_(layout), chunk_tokens_(chunk_tokens) {}
  int64_t FullPages(int num_tokens) const;
  // The most a sequence of this length needs at a time.
  int64_t SlidingPages(int num_tokens) const;
  int64_t Slabs(int64_t full_pages, int64_t sliding_pages) const;
  int64_t SlabsFor(int num_tokens) const {
    return Slabs(FullPages(num_tokens), SlidingPages(num_tokens));
  }

 private:
  KvLayout layout_;
  int chunk_tokens_;
};

class Scheduler {
 public:
  // num_slabs counts slab 0.
  Scheduler(const KvLayout& layout, int32_t num_slabs, const SchedulerLimits& limits);
  ~Scheduler();

  // Rows and output rows of a step never exceed these.
  static int MaxRows(const SchedulerLimits& limits);
  static int MaxOutputRows(const SchedulerLimits& limits);

  // Whether a sequence of this length can ever run.
  bool Fits(int num_tokens) const;
  // `sequence` fits and its id is new.
  void Add(NewSequence sequence);
  // Its pages return with the next Plan. Unknown ids are ignored.
  void Remove(SequenceId id);
  // Each Plan with rows is followed by one Commit before the next Plan.
  StepPlan Plan();
  void Commit(const StepResult& result);

  int num_running() const { return static_cast<int>(running_.size()); }
  int num_waiting() const { return static_cast<int>(waiting_.size()); }
  bool idle() const { return sequences_.empty(); }
  int64_t num_preemptions() const { return num_preemptions_; }
  // Of a live sequence.
  const std::vector<int32_t>& tokens(SequenceId id) const;
  int max_tokens(SequenceId id) const;
  const SlabPool& pool() const { return pool_; }
  // Every page has one owner, waiting sequences hold none, the pool agrees. For tests.
  void CheckInvariants() const;

 private:
  struct Sequence;
  void Retire();
  void Continue(StepPlan& plan);
  void Admit(StepPlan& plan);
  int RowsFor(const Sequence& sequence) const;
  // False when the pool has no page left; what it got stays with the sequence.
  bool Grow(Sequence& sequence, int num_rows);
  void ReleaseOutOfWindow(Sequence& sequence);
  void ReleaseAll(Sequence& sequence);
  void PreemptYoungest();
  void Append(Sequence& sequence, int num_rows, StepPlan& plan);
  void CheckTables(const Sequence& sequence, int num_rows) const;

  KvLayout layout_;
  SchedulerLimits limits_;
  KvFormula formula_;
  SlabPool pool_;
  std::map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::list<Sequence*> waiting_, running_;  // in order of arrival, of admission
  std::vector<PlannedRows> planned_;        // not committed yet
  int64_t reserved_full_ = 0, reserved_sliding_ = 0;
  int prefill_left_ = 0, scored_left_ = 0;  // of the plan in the making
  bool preempted_ = false;
  int64_t num_preemptions_ = 0;
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_SCHEDULER_H_
