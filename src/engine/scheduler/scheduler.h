// Scheduler: which rows run in the next step and which pages they own. Pure: no clock, no thread,
// no device; the same calls give the same plans. A step mixes decode rows and prompt chunks.
//
// Plan may run one step ahead: the tokens of the step before need not be committed yet. A sequence
// with c committed tokens and one unread step has between c + 1 and c + 1 + drafts tokens; pages
// are had for the most, sliding pages are let go for the least (docs/ARCHITECTURE.md, engine loop).
#ifndef LAPIDARY_ENGINE_SCHEDULER_H_
#define LAPIDARY_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "engine/step_plan.h"
#include "kv/layout.h"
#include "kv/page_budget.h"
#include "kv/prefix_cache.h"
#include "kv/slab_pool.h"

namespace lapidary {

inline constexpr int64_t kNoDeadline = std::numeric_limits<int64_t>::max();
inline constexpr int kMaxOvertakes = 64;
inline constexpr int kMaxRetractions = 4;
inline constexpr int kScoredRows = 64;  // prompt rows with logits a step

struct NewSequence {
  SequenceId id = 0;
  int max_tokens = 0;           // prompt and generated; at most the context
  int max_drafts = kAnyDrafts;  // of this sequence
  int priority = 0;             // smaller runs first
  bool score_prompt = false;    // computes every row of its prompt
  bool caches = true;           // takes from and gives to the prefix cache
  std::vector<int32_t> prompt;
  int64_t deadline_ms = kNoDeadline;
  CacheSalt salt{};
  std::vector<int32_t> turn_borders;   // positions in the prompt, ascending
  SequenceId waits_for_prompt_of = 0;  // a choice of the same prompt: starts with its pages
  std::shared_ptr<const SequenceParams> params;

  static constexpr int kAnyDrafts = 1 << 20;
};

// What a step's news mean for one sequence: the tokens that count (none after an end) and whether
// it is over. A sequence that failed leaves nothing in the prefix cache.
struct SequenceResult {
  SequenceId id = 0;
  std::vector<int32_t> tokens;
  bool finished = false, failed = false;
};
using StepResult = std::vector<SequenceResult>;  // in the order of the plan's rows

struct SchedulerLimits {
  int max_running = 64;
  int chunk_tokens = 256;      // rows of a step that prompt chunks and decode rows share
  int reserved_output = 4096;  // beyond it a sequence grows page by page and may be retracted
  bool overcommit = false;     // reserve the prompt and what outputs turned out to need
  int max_drafts = 0;          // k
  int max_draft_rows = 64;     // a step; beyond it sequences verify fewer drafts
  int max_length = 0;          // of a sequence
  // Of so many at the head of the queue those start first who find most of their prompt in the
  // prefix cache; up to 1: in order of arrival.
  int longest_prefix_among = 0;
  // A soft reserve: idle full pages are evicted while full pages take more than the rest of the
  // slabs.
  double sliding_share = 0;
};

struct SchedulerCounters {
  int64_t retractions = 0, retractions_within = 0;  // within: of a sequence inside its reservation
  int64_t recomputed_tokens = 0, planned_tokens = 0;
  int64_t cache_queries = 0, cache_hits = 0;  // in prompt tokens
  int64_t late_results = 0;                   // of sequences that are gone
};

class Scheduler {
 public:
  // num_slabs counts slab 0.
  Scheduler(const KvLayout& layout, int32_t num_slabs, const SchedulerLimits& limits);
  ~Scheduler();

  // Bounds of a step.
  static int MaxRows(const SchedulerLimits& limits);
  static int MaxOutputRows(const SchedulerLimits& limits);
  static int32_t MaxScratchPages(const KvLayout& layout, const SchedulerLimits& limits);
  static int32_t TableCells(const SchedulerLimits& limits);

  // Whether a sequence of this length can ever run.
  bool Fits(int num_tokens) const;
  // `sequence` fits and its id is new.
  void Add(NewSequence sequence);
  // Its pages return with the next Plan. Unknown ids are ignored.
  void Remove(SequenceId id);

  // The phases: retire, continue, preempt, admit. num_drafts: how many a sequence may draft in this
  // step. At most one plan is uncommitted when it is called.
  StepPlan Plan(int64_t now_ms, int num_drafts);
  // Of the oldest uncommitted plan that has rows.
  void Commit(const StepResult& result);
  // Sequences whose deadline the last Plan found passed; they are gone.
  const std::vector<SequenceId>& expired() const { return expired_; }

  bool has_unread() const { return !unread_.empty(); }
  int num_running() const { return static_cast<int>(running_.size()); }
  int num_waiting() const { return static_cast<int>(waiting_.size()); }
  // Sequences that draw a token in each step.
  int num_decoding() const { return num_decoding_; }
  bool idle() const { return sequences_.empty() && unread_.empty(); }
  const SchedulerCounters& counters() const { return counters_; }
  const SlabPool& pool() const { return pool_; }
  // Of a live sequence.
  const std::vector<int32_t>& tokens(SequenceId id) const;
  int cached_tokens(SequenceId id) const;  // of the prompt, at its first admission
  int cached_prefix(SequenceId id) const;  // its tokens that the prefix cache has now
  SequenceId head_of_queue() const;        // there is one
  // Frees all idle pages of the prefix cache, those of sequences that have just ended too.
  int64_t FlushCache();
  const KvFormula& formula() const { return formula_; }
  // Tokens that a new sequence reserves beyond its prompt, if it asks for as many. In overcommit a
  // page at first; each retraction doubles it, each sequence that ends takes a part of it back.
  int reserved_output() const { return reserved_output_; }

  // For tests.
  void CheckInvariants() const;
  PageBudget& budget() { return budget_; }

 private:
  struct Sequence;
  struct UnreadRows {
    SequenceId id;
    int32_t slot, num_rows;
    bool samples;
  };
  struct UnreadStep {
    uint64_t number;
    std::vector<UnreadRows> rows;
  };
  using Waiting = std::map<std::pair<int, int64_t>, Sequence*>;  // by priority, then arrival

  void Retire(int64_t now_ms);
  void KeepSlidingShare();
  void Continue();
  void Preempt();
  void Admit();

  // scheduler.cc
  void PlanDecode(Sequence& sequence);
  void AppendDecode(Sequence& sequence);
  int ChunkRows(const Sequence& sequence) const;
  bool PlanChunk(Sequence& sequence, int num_rows);
  void Retract(Sequence& sequence);
  void StopEnded();
  Sequence* Live(const UnreadRows& rows);
  void Stop(Sequence& sequence);
  int NewDrafts(const Sequence& sequence) const;
  // admission.cc
  std::vector<Sequence*> HeadByPrefix() const;
  bool Consider(Sequence& sequence);
  void CloseBehind(const Sequence& sequence);
  void NoteOvertaken(const Sequence& started);
  bool WaitsForItsPrompt(const Sequence& sequence) const;
  PrefixCache::Match FindPrefix(const Sequence& sequence) const;
  enum class Admission : uint8_t { kAdmitted, kNoPages, kNoRows };
  Admission TryAdmit(Sequence& sequence);
  bool EnterIfItFits(const Sequence& sequence, const PrefixCache::Match& match, int cells);
  void LeaveMatch(const PrefixCache::Match& match, int cells);
  // sequence_pages.cc
  void Settle(Sequence& sequence);
  void RegisterPages(Sequence& sequence, int num_cells);
  bool TakeFull(Sequence& sequence, int end_cell);
  bool TakeSliding(Sequence& sequence, int begin_cell, int end_cell);
  void TakeSpareSliding(Sequence& sequence, int begin_cell, int end_cell);
  void Pay(Sequence& sequence, SlidingPage page);
  void StopPaying(Sequence& sequence, int cell, SlidingPage page);
  void AdvanceWindow(Sequence& sequence, int first_position);
  void ReleaseSlidingBelow(Sequence& sequence, int cell);
  void ReleaseAll(Sequence& sequence);
  int64_t NumUnpaid(const Sequence& sequence) const;
  void Rebudget(Sequence& sequence);
  template <typename Page>
  std::optional<Page> TakePage(Sequence& sequence);
  template <typename Page>
  void SetPage(Sequence& sequence, int cell, Page page);
  int ReservedTokens(const Sequence& sequence) const;

  const KvLayout layout_;
  const SchedulerLimits limits_;
  const KvFormula formula_;
  SlabPool pool_;
  PrefixCache cache_;
  PageBudget budget_;
  // By sliding page: the one of its users whose reservation it comes out of. A sequence needs a
  // page of its own for every shared one its window leaves behind, so sharing saves no reservation;
  // when the payer leaves, another user pays, who kept a promise for it (Rebudget). Full pages are
  // kept to the end: every user counts them.
  std::vector<Sequence*> payers_;

  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  Waiting waiting_;
  std::list<Sequence*> running_;  // in order of admission
  std::set<std::pair<int64_t, SequenceId>> deadlines_;
  std::vector<SequenceId> ended_, expired_;
  std::vector<int32_t> free_slots_;
  std::vector<Sequence*> by_slot_;  // null: free
  std::deque<UnreadStep> unread_;
  SchedulerCounters counters_;
  uint64_t next_step_ = 1;
  int64_t next_arrival_ = 0;
  int reserved_output_;
  int num_decoding_ = 0;
  bool may_admit_ = true;  // something changed since the last look at all who wait
  int least_wanted_ = 0;   // then: the fewest tokens that one of them reserves and that did not fit

  // Of the plan in the making.
  StepPlan plan_;
  std::vector<Sequence*> lacking_;
  std::map<int, int64_t> closed_;  // by priority: who arrived later may not start
  int num_drafts_ = 0, rows_left_ = 0, draft_rows_left_ = 0, scored_left_ = 0;
  int32_t scratch_left_ = 0;
  bool retracted_ = false;
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_SCHEDULER_H_
