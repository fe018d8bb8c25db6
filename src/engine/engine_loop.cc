#include "engine/engine_loop.h"

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>
#include <utility>

#include "engine/choice.h"
#include "engine/validate.h"

namespace lapidary {
namespace {

constexpr uint64_t kAllChoices = kMaxChoices;

int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

class EngineLoop::Impl {
 public:
  Impl(std::unique_ptr<StepRunner> runner, const LoopOptions& options)
      : options_(options),
        ids_{options.end_ids, options.suppress_ids},
        runner_(std::move(runner)),
        scheduler_(options.layout, options.num_slabs, options.limits),
        sampler_(options.vocab_size) {
    if (!scheduler_.Fits(options.max_model_len))
      throw StartupError(fmt::format(
          "the KV cache has {} slabs of {} bytes, a context of {} tokens needs {}; use a shorter "
          "--max-model-len or more KV cache",
          options.num_slabs - 1, options.layout.slab_bytes, options.max_model_len,
          KvFormula(options.layout, options.limits.chunk_tokens).SlabsFor(options.max_model_len)));
    stats_.total_slabs = scheduler_.pool().num_slabs();
    thread_ = std::thread([this] { Run(); });
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  Status Submit(Request request, TokenSink sink) {
    Status status = ValidateRequest(request, options_.vocab_size, options_.max_model_len);
    if (!status.ok()) return status;
    {
      const std::lock_guard lock(mutex_);
      if (stop_) return Error{"the engine stops", "", "draining"};
      if (queued_.size() >= static_cast<size_t>(options_.max_queued_requests))
        return Error{fmt::format("{} requests wait already", queued_.size()), "", "queue_full"};
      if (!live_ids_.insert(request.id).second)
        return Error{fmt::format("request {} is live", request.id), "request_id", "invalid_value"};
      queued_.insert(request.id);
      auto live = std::make_shared<LiveRequest>();
      live->num_live = request.num_choices;
      live->request = std::move(request);
      live->sink = std::move(sink);
      arrivals_.push_back(std::move(live));
    }
    wake_.notify_one();
    return Ok{};
  }

  void Cancel(uint64_t request_id, uint64_t choice) {
    {
      const std::lock_guard lock(mutex_);
      if (!live_ids_.contains(request_id)) return;
      cancels_.emplace_back(request_id, choice);
    }
    wake_.notify_one();
  }

  EngineStats stats() const {
    const std::lock_guard lock(mutex_);
    EngineStats stats = stats_;
    stats.num_queued = static_cast<int>(queued_.size());
    return stats;
  }

 private:
  using Live = std::shared_ptr<LiveRequest>;

  void Run() {
    while (Take()) Step();
    while (!choices_.empty()) EndChoice(choices_.begin()->first, FinishReason::kAbort);
  }

  // Waits for work; false when the engine stops.
  bool Take() {
    std::vector<Live> arrivals;
    std::vector<std::pair<uint64_t, uint64_t>> cancels;
    bool stop = false;
    {
      std::unique_lock lock(mutex_);
      // Ticks while idle, so that a watchdog can tell idle from stuck.
      while (scheduler_.idle() && arrivals_.empty() && cancels_.empty() && !stop_) {
        stats_.last_progress_ms = NowMs();
        wake_.wait_for(lock, std::chrono::milliseconds(500));
      }
      arrivals.swap(arrivals_);
      cancels.swap(cancels_);
      stop = stop_;
    }
    for (Live& live : arrivals) Start(live);
    for (const auto& [request_id, choice] : cancels) TakeCancel(request_id, choice);
    return !stop;
  }

  void Start(const Live& live) {
    const Request& request = live->request;
    const int64_t wanted = static_cast<int64_t>(request.prompt.size()) + request.max_tokens;
    const auto max_length = static_cast<int>(std::min<int64_t>(wanted, options_.max_model_len));
    std::vector<SequenceId>& sequences = by_request_[request.id];
    for (int index = 0; index < request.num_choices; ++index) {
      const SequenceId id = next_sequence_++;
      const bool scored = index == 0 && request.sampling.num_prompt_logprobs >= 0;
      scheduler_.Add({id, request.prompt, max_length, scored});
      choices_.emplace(id, Choice(live, index, max_length, ids_));
      sequences.push_back(id);
    }
  }

  void TakeCancel(uint64_t request_id, uint64_t choice) {
    const auto found = by_request_.find(request_id);
    if (found == by_request_.end()) return;
    const std::vector<SequenceId> sequences = found->second;
    for (size_t i = 0; i < sequences.size(); ++i) {
      if (choice != kAllChoices && choice != i) continue;
      scheduler_.Remove(sequences[i]);
      // A choice that its caller ended hears nothing more.
      EndChoice(sequences[i], choice == kAllChoices ? FinishReason::kAbort : FinishReason::kNone);
    }
  }

  // Forgets the choice after a last event, none for kNone. Ended ones are ignored.
  void EndChoice(SequenceId id, FinishReason reason) {
    const auto found = choices_.find(id);
    if (found == choices_.end()) return;
    Choice choice = std::move(found->second);
    choices_.erase(found);
    LiveRequest& live = choice.live();
    const uint64_t request_id = live.request.id;
    if (--live.num_live == 0) {
      by_request_.erase(request_id);
      const std::lock_guard lock(mutex_);
      live_ids_.erase(request_id);
      queued_.erase(request_id);
    }
    if (reason == FinishReason::kNone) return;
    choice.End(reason);
    live.sink(choice.TakeEvent());
  }

  void Step() {
    const StepPlan plan = scheduler_.Plan();
    StepOutput output;
    if (!plan.rows.empty()) output = runner_->Forward(plan.batch);
    StepResult result;
    for (const PlannedRows& rows : plan.rows) result.push_back(Advance(rows, output));
    scheduler_.Commit(result);
    Publish(plan);
    for (const SequenceResult& news : result) Deliver(news);
  }

  SequenceResult Advance(const PlannedRows& rows, const StepOutput& output) {
    Choice& choice = choices_.at(rows.id);
    const float* logits = rows.num_outputs == 0
                              ? nullptr
                              : output.logits.Rows(rows.first_output, rows.num_outputs).f32();
    SequenceResult result{rows.id, -1, false};
    result.finished =
        choice.Advance(rows, logits, scheduler_.tokens(rows.id), sampler_, options_.vocab_size);
    result.token = choice.last_token();
    prompt_tokens_ += rows.samples && rows.first_position + rows.num_rows ==
                                          static_cast<int>(choice.live().request.prompt.size())
                          ? static_cast<int64_t>(choice.live().request.prompt.size())
                          : 0;
    generated_tokens_ += rows.samples;
    return result;
  }

  void Deliver(const SequenceResult& news) {
    Choice& choice = choices_.at(news.id);
    if (!choice.has_news()) return;
    TokenEvent event = choice.TakeEvent();
    const TokenSink& sink = choice.live().sink;
    if (news.finished) {
      const TokenSink last = sink;
      EndChoice(news.id, FinishReason::kNone);
      last(std::move(event));
    } else {
      sink(std::move(event));
    }
  }

  void Publish(const StepPlan& plan) {
    const std::lock_guard lock(mutex_);
    for (const PlannedRows& rows : plan.rows) queued_.erase(choices_.at(rows.id).live().request.id);
    stats_.num_running = scheduler_.num_running();
    stats_.num_steps += !plan.rows.empty();
    stats_.used_slabs = scheduler_.pool().num_slabs() - scheduler_.pool().num_free_slabs();
    stats_.prompt_tokens = prompt_tokens_;
    stats_.generated_tokens = generated_tokens_;
    stats_.preemptions = scheduler_.num_preemptions();
    stats_.last_progress_ms = NowMs();
  }

  const LoopOptions options_;
  const EngineIds ids_;

  // Engine thread only.
  std::unique_ptr<StepRunner> runner_;
  Scheduler scheduler_;
  Sampler sampler_;
  std::map<SequenceId, Choice> choices_;
  std::unordered_map<uint64_t, std::vector<SequenceId>> by_request_;
  SequenceId next_sequence_ = 1;
  int64_t prompt_tokens_ = 0, generated_tokens_ = 0;

  mutable std::mutex mutex_;  // guards all below
  std::condition_variable wake_;
  bool stop_ = false;
  std::vector<Live> arrivals_;
  std::vector<std::pair<uint64_t, uint64_t>> cancels_;  // request, choice
  std::set<uint64_t> live_ids_, queued_;
  EngineStats stats_;

  std::thread thread_;
};

EngineLoop::EngineLoop(std::unique_ptr<StepRunner> runner, const LoopOptions& options)
    : impl_(std::make_unique<Impl>(std::move(runner), options)) {}
EngineLoop::~EngineLoop() = default;
Status EngineLoop::Submit(Request request, TokenSink sink) {
  return impl_->Submit(std::move(request), std::move(sink));
}
void EngineLoop::Cancel(uint64_t request_id) { impl_->Cancel(request_id, kAllChoices); }
void EngineLoop::CancelChoice(uint64_t request_id, int choice) {
  if (choice >= 0 && choice < kMaxChoices) impl_->Cancel(request_id, static_cast<uint64_t>(choice));
}
EngineStats EngineLoop::stats() const { return impl_->stats(); }

}  // namespace lapidary
