// Engine: requests in token ids to tokens. One thread runs take -> plan -> step -> commit ->
// deliver.
#ifndef LAPIDARY_ENGINE_ENGINE_H_
#define LAPIDARY_ENGINE_ENGINE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "engine/request.h"
#include "model/drafter.h"
#include "model/gemma4.h"
#include "model/loader.h"

namespace lapidary {

inline constexpr int kDefaultDrafts = 4;  // the most the adaptive policy makes

struct EngineOptions {
  int max_model_len = 0;          // 0: the model's, or what fits
  int max_running_requests = 64;  // sequences in a step; n choices count n
  int max_queued_requests = 8192;
  int chunk_tokens = 0;  // rows a step; 0: DefaultChunkTokens
  // At most, and what max running x context can fill; 0: a quarter of the available RAM. On a GPU
  // also what weights and workspaces leave.
  uint64_t kv_bytes = 0;
  int num_threads = 0;                // 0: all cores
  bool fast_prefill = true;           // YOCO prefill in models with shared KV layers
  int reserved_output_tokens = 4096;  // of each request; beyond it a sequence may be retracted
  bool overcommit = false;            // reserve prompts and what outputs turned out to need
  bool prefix_cache = true;
  // Of the first 64 who wait those start first who find most of their prompt in the
  // prefix cache; nobody is overtaken more than 64 times.
  bool longest_prefix_first = false;
  bool overlap = true;           // plan a step ahead of the tokens
  bool batch_invariant = false;  // no bit of an answer depends on other requests; so on a CPU
  int num_draft_tokens =
      -1;  // drafts a burst; 0: no speculation; -1: adaptive, if there is a drafter
  std::optional<DraftPosition> draft_position;  // none: measured
  double sliding_share = 0;                     // of the slabs, kept free of idle full pages
  KvFold kv_fold = KvFold::kAuto;
  bool debug_kv_bounds = false;  // checks every page table entry before each attention
  int log_interval = 0;          // decode steps a log line; 0: no step is logged
  std::vector<int32_t> end_ids;  // the model's: generation_config.json and those found by content
  std::vector<int32_t> suppress_ids;  // never sampled
  // For benches of random weights, 0: off. Tokens a burst gives on average, right or wrong: its
  // first drafts are accepted, the one after them as often as the fraction says.
  double simulated_accept_length = 0;
};

// Enough rows to keep the device busy; fewer where a step of the model takes long.
int DefaultChunkTokens(const ModelConfig& config, bool is_cpu);

struct EngineStats {
  int num_running = 0, num_queued = 0;
  int64_t num_steps = 0, num_begun = 0;  // read; begun, of which the newest are not read yet
  int64_t prompt_tokens = 0, generated_tokens = 0;
  int max_running_requests = 0;
  int64_t max_total_tokens = 0;  // that the slabs hold in requests as long as the context
  // Used: with a page that a sequence reads; used_full_slabs of them hold full pages.
  int64_t total_slabs = 0, used_slabs = 0, used_full_slabs = 0;
  int64_t full_pages = 0, sliding_pages = 0, idle_pages = 0;
  int64_t num_bursts = 0, drafted_tokens = 0, accepted_tokens = 0;
  std::array<int64_t, kMaxDrafts> accepted_by_place{};
  int64_t preemptions = 0, recomputed_tokens = 0;
  int64_t cache_queries = 0, cache_hits = 0;  // in prompt tokens
  int64_t aborted = 0, nonfinite_rows = 0, stalls = 0;
  int64_t last_progress_ms = 0;  // steady clock, of the last finished step or idle pass
};

class Engine {
 public:
  // Takes the loaded target and, if any, its drafter; runs where the target's weights lie.
  // Allocates everything; throws StartupError with one sentence when the plan does not fit.
  Engine(std::unique_ptr<Checkpoint> target, std::unique_ptr<Checkpoint> drafter,
         const EngineOptions& options);
  ~Engine();  // stops at once: live requests end with kAbort

  const ModelConfig& config() const;
  int max_model_len() const;

  // Thread-safe. Errors are the caller's fault (a prompt too long, an id out of range: 400) or load
  // (code "queue_full": 429). After an Ok the sink gets events until each choice has had one with a
  // finish reason.
  Status Submit(Request request, TokenSink sink);
  // Thread-safe; unknown ids are ignored. Live choices end with kAbort; no event follows it.
  void Cancel(uint64_t request_id);
  // Ends one choice only, as done by the caller (stop string): no further event for it.
  void CancelChoice(uint64_t request_id, int choice);
  // Drops cached pages that nobody uses; returns how many.
  int64_t FlushCache();
  EngineStats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_ENGINE_H_
