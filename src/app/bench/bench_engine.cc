#include "app/bench/bench_engine.h"

#include <fmt/core.h>
#include <CLI/App.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <utility>

#include "app/bench/bench_command.h"
#include "app/bench/progress.h"
#include "app/bench/record.h"
#include "app/plan/plan_model.h"
#include "ops/ceilings.h"

namespace lapidary {
namespace {

using Clock = std::chrono::steady_clock;

double Now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

// The answers of one run; the engine's thread writes, the caller waits.
class Answers {
 public:
  explicit Answers(const std::vector<BenchRequest>& requests)
      : traces_(requests.size()), outputs_(requests.size()) {
    for (size_t i = 0; i < requests.size(); ++i) {
      traces_[i].num_prompt = static_cast<int>(requests[i].prompt.size());
      traces_[i].arrivals_s.reserve(static_cast<size_t>(requests[i].max_tokens));
      outputs_[i].reserve(static_cast<size_t>(requests[i].max_tokens));
    }
  }
  void Sent(size_t index) { traces_[index].sent_s = Now(); }
  void Take(size_t index, const TokenEvent& event) {
    RequestTrace& trace = traces_[index];
    const auto num_tokens = static_cast<int>(event.tokens.size());
    if (num_tokens > 0) trace.arrivals_s.push_back(Now());
    trace.num_output += num_tokens;
    outputs_[index].insert(outputs_[index].end(), event.tokens.begin(), event.tokens.end());
    if (event.finish == FinishReason::kError) trace.error = "logits that are no numbers";
    if (event.finish == FinishReason::kAbort) trace.error = "ended by the engine";
    const std::lock_guard lock(mutex_);
    num_tokens_ += num_tokens;
    if (event.finish == FinishReason::kNone) return;
    ++num_done_;
    changed_.notify_one();
  }
  // Until `count` are done, or a while has passed.
  std::pair<size_t, int64_t> WaitFor(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(100), [&] { return num_done_ >= count; });
    return {num_done_, num_tokens_};
  }
  // When all are done.
  const std::vector<RequestTrace>& traces() const { return traces_; }
  std::vector<std::vector<int32_t>>& outputs() { return outputs_; }

 private:
  std::vector<RequestTrace> traces_;
  std::vector<std::vector<int32_t>> outputs_;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t num_done_ = 0;
  int64_t num_tokens_ = 0;
};

Request ToRequest(const BenchRequest& from, uint64_t id, std::optional<int> max_drafts) {
  Request request;
  request.id = id;
  request.prompt = from.prompt;
  request.max_tokens = from.max_tokens;
  request.sampling = from.sampling;
  request.max_drafts = max_drafts;
  return request;
}

void TakeCounts(const EngineStats& before, const EngineStats& after, EngineRun& run) {
  run.steps = after.num_steps - before.num_steps;
  run.bursts = after.num_bursts - before.num_bursts;
  run.drafted = after.drafted_tokens - before.drafted_tokens;
  run.accepted = after.accepted_tokens - before.accepted_tokens;
  run.preemptions = after.preemptions - before.preemptions;
}

// Of up to 800 tokens, evenly from all answers: models that say the same read the same experts.
std::pair<size_t, size_t> CountDistinct(const std::vector<std::vector<int32_t>>& outputs) {
  constexpr size_t kLookedAt = 800;
  const size_t each = (kLookedAt + outputs.size() - 1) / outputs.size();
  std::set<int32_t> distinct;
  size_t count = 0;
  for (const std::vector<int32_t>& output : outputs)
    for (size_t i = 0; i < std::min(each, output.size()) && count < kLookedAt; ++i, ++count)
      distinct.insert(output[i * output.size() / std::min(each, output.size())]);
  return {count, distinct.size()};
}

}  // namespace

void AddBenchFlags(CLI::App& app, BenchFlags& flags) {
  flags.engine.prefix_cache = false;
  flags.run.logs_steps = false;
  AddModelFlags(app, flags.model);
  AddLoadFlags(app, flags.model);
  app.add_option("--speculative-simulate-accept-length", flags.engine.simulated_accept_length,
                 "tokens a burst, right or wrong: for random weights (off)")
      ->check(CLI::Range(1.0, double{kMaxDrafts + 1}));
  app.add_flag("--skip-tokenizer-init", flags.skip_tokenizer, "no tokenizer: ids in, ids out");
  AddWorkloadFlags(app, flags.workload);
  AddRunFlags(app, flags.repeats, flags.json_path);
  AddMemoryFlags(app, flags.memory, flags.engine);
  app.get_option("--enable-prefix-caching")->description("keep the KV of prompts (off)");
  AddEngineFlags(app, flags.run, flags.engine);
}

std::vector<Figure> EngineRun::figures() const {
  std::vector<Figure> all = FiguresOf(metrics);
  all.push_back({"step_ms", "step ms", 1e3 * metrics.duration_s / static_cast<double>(steps)});
  all.push_back({"accept_length", "accept length", accept_length()});
  all.push_back({"running", "most running", static_cast<double>(most_running)});
  all.push_back({"preemptions", "preemptions", static_cast<double>(preemptions)});
  all.push_back({"kv_slabs", "KV slabs used", static_cast<double>(most_slabs)});
  const auto [num_sampled, num_distinct] = CountDistinct(outputs);
  all.push_back({"sampled_tokens", "tokens looked at", static_cast<double>(num_sampled)});
  all.push_back({"distinct_sampled_tokens", "distinct of them", static_cast<double>(num_distinct)});
  if (routing) AddFigures(*routing, all);
  if (!bound) return all;
  const double throughput = static_cast<double>(metrics.output_tokens) / metrics.duration_s;
  all.push_back({"bound_output_throughput", "bound: output tok/s", bound->tok_per_s});
  all.push_back({"percent_of_bound", "% of it reached", 100 * throughput / bound->tok_per_s});
  all.push_back({"bound_step_ms", "bound: decode step ms", bound->step_ms});
  all.push_back({"bound_step_gb", "GB such a step reads", bound->step_bytes * 1e-9});
  if (metrics.decode_tok_per_s > 0)
    all.push_back({"decode_percent_of_bound", "% of its speed reached",
                   100 * metrics.decode_tok_per_s / bound->decode_tok_per_s});
  return all;
}

BenchEngine::BenchEngine(const BenchFlags& flags) : flags_(flags) {
  OrderOf(flags.run);  // refuses what disagrees
  EngineOptions options = flags.engine;
  options.max_queued_requests =
      std::max(options.max_queued_requests, flags.workload.num_requests + 1);
  LoadOptions load;
  load.ops = OpenGpuOps(flags.model.backend);
  plan_ = PlanModel(flags.model, flags.memory, options, MemoryBudget::Of(load.ops.get())).memory;
  NeedContext(plan_, options.max_model_len);
  ceilings_ = load.ops ? MeasureGpuCeilings(*load.ops) : MeasureHostCeilings(options.num_threads);
  gpu_ = load.ops;
  const double start = Now();
  LoadedModel model = LoadModel(flags.model, load);
  load_seconds_ = Now() - start;
  if (flags.skip_tokenizer) model.tokenizer = nullptr;
  tokenizer_ = model.tokenizer;
  template_ = model.chat.revision;
  model_name_ = std::filesystem::absolute(model.dir).lexically_normal().filename().string();
  drafter_reason_ = model.drafter_reason;
  has_drafter_ = model.drafter != nullptr;
  moe_ = model.target->config.moe;
  const DType kv_dtype = plan_.layout.dtype;
  const bool folds = plan_.fold.folds;
  target_work_.emplace(model.target->config, kv_dtype, folds, options.fast_prefill);
  if (has_drafter_) drafter_work_.emplace(model.drafter->config, kv_dtype, folds, false);
  options = WithModel(plan_.options, flags.model, model);
  engine_ = std::make_unique<Engine>(std::move(model.target), std::move(model.drafter), options);
  ready_seconds_ = Now() - start;
}

std::vector<BenchRequest> BenchEngine::MakeRequests() const {
  const int vocab_size = engine_->config().vocab_size;
  const WorkloadFlags& workload = flags_.workload;
  const std::vector<BenchRequest> requests =
      workload.prompts_file.empty()
          ? MakeWorkload(workload, vocab_size)
          : ReadWorkload(workload, PromptReader(template_, tokenizer_.get(), vocab_size));
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto length = static_cast<int64_t>(requests[i].prompt.size()) + requests[i].max_tokens;
    if (length > engine_->max_model_len())
      throw StartupError(
          fmt::format("request {}: {} tokens in and {} out are more than the context of {}", i + 1,
                      requests[i].prompt.size(), requests[i].max_tokens, engine_->max_model_len()));
  }
  return requests;
}

EngineRun BenchEngine::Run(const std::vector<BenchRequest>& requests, const RunOptions& options) {
  // Shared with the sinks, which a throw below would leave behind.
  const auto answers = std::make_shared<Answers>(requests);
  engine_->FlushCache();
  const EngineStats before = engine_->stats();
  const bool counts_experts = gpu_ != nullptr && moe_.num_experts > 0;
  const auto tally = [&] { return counts_experts ? ReadExpertTally(*gpu_) : ExpertTally(); };
  const ExpertTally tally_before = tally();
  EngineRun run;
  ProgressLine progress(options.label, requests.size(), "tokens");
  const size_t most = options.concurrency == 0 ? requests.size() : options.concurrency;
  const double start = Now();
  size_t num_sent = 0, num_done = 0;
  while (num_done < requests.size()) {
    for (; num_sent < requests.size() && num_sent - num_done < most; ++num_sent) {
      Request request = ToRequest(requests[num_sent], next_id_++, options.max_drafts);
      answers->Sent(num_sent);
      OrThrow(engine_->Submit(std::move(request), [answers, num_sent](TokenEvent&& event) {
        answers->Take(num_sent, event);
      }));
    }
    const size_t wanted = num_sent < requests.size() ? num_done + 1 : requests.size();
    int64_t num_tokens = 0;
    std::tie(num_done, num_tokens) = answers->WaitFor(wanted);
    const EngineStats now = engine_->stats();
    run.most_running = std::max<int64_t>(run.most_running, now.num_running);
    run.most_slabs = std::max(run.most_slabs, now.used_slabs);
    progress.Show(num_done, num_tokens);
  }
  run.metrics = Measure(answers->traces(), Now() - start);
  for (const RequestTrace& trace : answers->traces())
    if (!trace.ok()) run.errors.push_back(trace.error);
  // What was looked at above may have missed a short run's.
  run.most_running = std::max(run.most_running, MostDecoding(answers->traces()));
  TakeCounts(before, engine_->stats(), run);
  if (counts_experts) run.routing = RoutingOf(tally() - tally_before, moe_);
  run.bound = BoundFor(run, answers->traces());
  run.outputs = std::move(answers->outputs());
  return run;
}

std::optional<RunBound> BenchEngine::BoundFor(const EngineRun& run,
                                              const std::vector<RequestTrace>& traces) const {
  if (ceilings_.read_gb_per_s == 0 || !run.errors.empty()) return std::nullopt;
  RunShape shape;
  for (const RequestTrace& trace : traces)
    shape.lengths.emplace_back(trace.num_prompt, trace.num_output);
  shape.num_sequences = MeanDecoding(traces);
  shape.accept_length = run.accept_length();
  if (run.bursts > 0)
    shape.drafts_a_step = static_cast<double>(run.drafted) / static_cast<double>(run.bursts);
  return BoundOf(shape, *target_work_, drafter_work_ ? &*drafter_work_ : nullptr, ceilings_);
}

json::object BenchEngine::Tell() const {
  const EngineOptions& options = plan_.options;
  return {
      {"model", model_name_},
      {"weights", flags_.model.load_format == "dummy" ? "random" : "of the checkpoint"},
      {"drafter", has_drafter_ ? drafter_reason_ : "none"},
      {"drafts_a_burst", flags_.model.num_drafts() < 0 ? json::value("adaptive")
                                                       : json::value(flags_.model.num_drafts())},
      {"device", plan_.is_cpu ? "cpu" : "gpu"},
      {"ceilings", TellCeilings(ceilings_)},
      {"load_s", load_seconds_},
      {"ready_s", ready_seconds_},
      {"simulated_accept_length", options.simulated_accept_length > 0
                                      ? json::value(options.simulated_accept_length)
                                      : json::value(nullptr)},
      {"context", engine_->max_model_len()},
      {"kv_slabs", plan_.num_slabs},
      {"slab_bytes", plan_.layout.slab_bytes},
      {"kv_folded", plan_.fold.folds},
      {"chunk_tokens", options.chunk_tokens},
      {"max_running_requests", options.max_running_requests},
      {"prefix_cache", options.prefix_cache},
      {"overlap", options.overlap}};
}

std::string BenchEngine::Line() const {
  return fmt::format(
      "{}{} on the {}   loaded in {:.2f} s, ready in {:.2f} s   drafter {}   "
      "context {}   at most {} run   chunk {}   prefix cache {}\nceilings  {}, of this run",
      model_name_, flags_.model.load_format == "dummy" ? ", random weights" : "",
      plan_.is_cpu ? "CPU" : "GPU", load_seconds_, ready_seconds_,
      has_drafter_ ? drafter_reason_ : "none", engine_->max_model_len(),
      plan_.options.max_running_requests, plan_.options.chunk_tokens,
      plan_.options.prefix_cache ? "on" : "off", CeilingsLine(ceilings_));
}

}  // namespace lapidary
