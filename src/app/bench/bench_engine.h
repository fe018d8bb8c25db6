// BenchEngine: a model loaded as `serve` loads it, on which sets of requests are run in process.
#ifndef LAPIDARY_APP_BENCH_BENCH_ENGINE_H_
#define LAPIDARY_APP_BENCH_BENCH_ENGINE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/bench/bound.h"
#include "app/bench/metrics.h"
#include "app/bench/routing.h"
#include "app/bench/workload.h"
#include "app/model/load_model.h"
#include "app/plan/memory_plan.h"
#include "app/serve/engine_flags.h"
#include "io/json.h"

namespace CLI {
class App;
}

namespace lapidary {

struct BenchFlags {
  ModelFlags model;
  MemoryFlags memory;
  EngineFlags run;
  EngineOptions engine;
  WorkloadFlags workload;
  bool skip_tokenizer = false;
  int repeats = 3;  // that count; one before them does not
  std::string json_path;
};
// The engine's flags are `serve`'s.
void AddBenchFlags(CLI::App& app, BenchFlags& flags);

struct RunOptions {
  std::string label;              // of the progress line
  size_t concurrency = 0;         // requests at a time; 0: all at once
  std::optional<int> max_drafts;  // a burst; unset: the engine's
};

struct EngineRun {
  LoadMetrics metrics;
  std::vector<std::vector<int32_t>> outputs;  // by request
  std::vector<std::string> errors;            // of requests that failed
  // What the engine counted meanwhile; the last two as seen from time to time.
  int64_t steps = 0, bursts = 0, drafted = 0, accepted = 0, preemptions = 0;
  int64_t most_running = 0, most_slabs = 0;
  std::optional<RunBound> bound;   // unset where the ceilings are not known
  std::optional<Routing> routing;  // of a model with experts, on a GPU
  double accept_length() const {
    return bursts == 0 ? 1 : 1 + static_cast<double>(accepted) / static_cast<double>(bursts);
  }
  // Of the metrics and of the engine.
  std::vector<Figure> figures() const;
};

class BenchEngine {
 public:
  // Throws StartupError.
  explicit BenchEngine(const BenchFlags& flags);

  // From the file of prompts that the flags name, or random. Every request fits.
  std::vector<BenchRequest> MakeRequests() const;
  // The prefix cache is empty at the beginning.
  EngineRun Run(const std::vector<BenchRequest>& requests, const RunOptions& options);
  bool has_drafter() const { return has_drafter_; }
  json::object Tell() const;  // model and plan, for the record
  std::string Line() const;   // the same for people

 private:
  std::optional<RunBound> BoundFor(const EngineRun& run,
                                   const std::vector<RequestTrace>& traces) const;

  const BenchFlags& flags_;
  MemoryPlan plan_;
  std::string model_name_, drafter_reason_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  TemplateRevision template_ = TemplateRevision::kEdge;
  bool has_drafter_ = false;
  std::shared_ptr<Ops> gpu_;  // null: the CPU is used
  MoeConfig moe_;
  double load_seconds_ = 0, ready_seconds_ = 0;
  Ceilings ceilings_;
  std::optional<ModelWork> target_work_, drafter_work_;
  std::unique_ptr<Engine> engine_;
  uint64_t next_id_ = 1;
};

}  // namespace lapidary

#endif  // LAPIDARY_APP_BENCH_BENCH_ENGINE_H_
