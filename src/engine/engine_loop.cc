#include "engine/engine_loop.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <future>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>
#include <utility>

#include "base/log.h"
#include "base/trace.h"
#include "engine/choice.h"
#include "engine/device_thread.h"
#include "engine/step_log.h"
#include "engine/validate.h"

namespace lapidary {
namespace {

constexpr uint64_t kAllChoices = kMaxChoices;

int64_t NowUs() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Shares pages between the choices of one request and with nobody else.
CacheSalt OwnSalt(uint64_t request_id) {
  CacheSalt salt{};
  salt.fill(0xff);
  std::memcpy(salt.data(), &request_id, sizeof(request_id));
  return salt;
}

}  // namespace

class EngineLoop::Impl {
 public:
  Impl(std::unique_ptr<StepRunner> runner, const LoopOptions& options)
      : options_(options),
        scheduler_(options.layout, options.num_slabs, options.limits),
        drafts_(options.drafts),
        log_(options.log_interval) {
    if (!scheduler_.Fits(options.limits.max_length))
      throw StartupError(fmt::format(
          "the KV cache has {} slabs of {} bytes, a context of {} tokens needs {}; use a shorter "
          "--max-model-len or more KV cache",
          options.num_slabs - 1, options.layout.slab_bytes, options.limits.max_length,
          scheduler_.formula().SlabsFor(options.limits.max_length)));
    const int context = options.limits.max_length;
    counts_.total_slabs = scheduler_.pool().num_slabs();
    counts_.max_running_requests = options.limits.max_running;
    counts_.max_total_tokens =
        counts_.total_slabs / scheduler_.formula().SlabsFor(context) * context;
    stats_ = counts_;
    device_ = std::make_unique<DeviceThread>(std::move(runner));
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
    Status status = ValidateRequest(request, options_.vocab_size, options_.limits.max_length);
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
      arrivals_.push_back({std::move(live), NowUs()});
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

  int64_t FlushCache() {
    std::promise<int64_t> answer;
    std::future<int64_t> flushed = answer.get_future();
    {
      const std::lock_guard lock(mutex_);
      if (stop_) return 0;
      flushes_.push_back(std::move(answer));
    }
    wake_.notify_one();
    return flushed.get();
  }

  EngineStats stats() const {
    const std::lock_guard lock(mutex_);
    EngineStats stats = stats_;
    // A loop that waits for a beating device is alive.
    stats.last_progress_ms = std::max(stats.last_progress_ms, device_->last_beat_ms());
    stats.num_queued = static_cast<int>(queued_.size());
    return stats;
  }

 private:
  struct Arrival {
    std::shared_ptr<LiveRequest> live;
    int64_t time_us;
  };
  // A plan the device has and the loop has not read.
  struct Unread {
    std::vector<PlannedRows> rows;
    int num_starts;
    DraftPosition verified, drafted;
  };

  void Run() {
    Trace::NameThread("engine");
    while (Take()) Step();
    while (!unread_.empty()) Read();
    while (!choices_.empty()) EndChoice(choices_.begin()->first, FinishReason::kAbort);
    const std::lock_guard lock(mutex_);
    for (auto& answer : flushes_) answer.set_value(0);
  }

  // The two orders, one page: overlapped, the device runs step n + 1 while step n is read.
  void Step() {
    StepPlan plan = Plan();
    for (const SequenceId id : scheduler_.expired()) EndChoice(id, FinishReason::kAbort);
    const bool has_rows = !plan.rows.empty();
    Launch(std::move(plan));
    if (!options_.overlap || !has_rows) {
      while (!unread_.empty()) Read();
    } else if (unread_.size() > 1) {
      Read();
    }
    Publish();
    WatchForStall(has_rows);
  }

  StepPlan Plan() {
    const TraceSpan span("plan");
    return scheduler_.Plan(NowUs() / 1000, drafts_.num_drafts(scheduler_.num_decoding()));
  }

  void Launch(StepPlan plan) {
    plan.draft_position = drafts_.position();
    bool drafts = false;
    const int64_t now = NowUs();
    for (const PlannedRows& rows : plan.rows) {
      drafts |= rows.num_new_drafts > 0;
      if (rows.decode) continue;  // it has started
      const auto found = choices_.find(rows.id);
      if (found == choices_.end()) continue;
      RequestTimes& times = found->second.times();
      if (times.first_step_us != 0) continue;
      times.first_step_us = now;
      started_.push_back(found->second.live()->request.id);
    }
    drafts_.Planned(drafts);
    unread_.push_back(
        {plan.rows, static_cast<int>(plan.starts.size()), newest_position_, plan.draft_position});
    newest_position_ = plan.draft_position;
    if (!plan.rows.empty()) {
      const std::lock_guard lock(mutex_);
      stats_.num_begun = ++num_begun_;
    }
    device_->Launch(std::move(plan));
  }

  // Takes the oldest unread step: its tokens enter the scheduler first, then leave for the clients.
  void Read() {
    const Unread step = std::move(unread_.front());
    unread_.pop_front();
    StepNews news = device_->Read();
    if (step.rows.empty()) return;
    const TraceSpan span("commit and deliver");
    StepResult results;
    results.reserve(step.rows.size());
    const int64_t now = NowUs();
    for (size_t i = 0; i < step.rows.size(); ++i)
      results.push_back(TakeNews(step, step.rows[i], std::move(news.rows.at(i)), now));
    scheduler_.Commit(results);
    ++num_steps_;
    Publish();  // who hears of a token finds it counted
    for (const SequenceResult& result : results) Deliver(result);
    WriteLog(step, now);
    if (drafts_.TakeDecision())
      LogInfo("draft position {}: accepted {:.3f} of drafts at the newest index, {:.3f} one before",
              drafts_.position() == DraftPosition::kNewest ? "newest" : "last-kv",
              drafts_.acceptance(DraftPosition::kNewest),
              drafts_.acceptance(DraftPosition::kLastKv));
  }

  void WriteLog(const Unread& step, int64_t now_us) {
    if (options_.log_interval == 0) return;
    const SlabPool& pool = scheduler_.pool();
    StepFacts facts;
    facts.num_new_sequences = step.num_starts;
    for (const PlannedRows& rows : step.rows)
      facts.num_new_tokens += rows.decode ? 0 : rows.num_rows;
    const int64_t hits = scheduler_.counters().cache_hits;
    facts.num_cached_tokens = static_cast<int>(hits - std::exchange(logged_hits_, hits));
    facts.num_running = scheduler_.num_running();
    facts.num_queued = scheduler_.num_waiting();
    facts.full_tokens = pool.num_live_pages(PageKind::kFull) * kPageTokens;
    const auto usage = [&](PageKind kind) {
      return static_cast<double>(pool.num_live_slabs(kind)) / pool.num_slabs();
    };
    facts.full_usage = usage(PageKind::kFull);
    facts.sliding_usage = usage(PageKind::kSliding);
    facts.generated_tokens = counts_.generated_tokens;
    facts.retractions = scheduler_.counters().retractions;
    facts.num_bursts = counts_.num_bursts;
    facts.drafted = counts_.drafted_tokens;
    facts.accepted = counts_.accepted_tokens;
    facts.now_us = now_us;
    if (const std::string line = log_.Line(facts); !line.empty()) LogInfo("{}", line);
  }

  SequenceResult TakeNews(const Unread& step, const PlannedRows& rows, RowsNews&& news,
                          int64_t now_us) {
    const auto found = choices_.find(rows.id);
    if (found == choices_.end()) return {rows.id, {}, false, false};
    Choice& choice = found->second;
    drafts_.Observe(step.verified, news.num_drafted, news.num_accepted);
    if (news.num_drafted > 0) {
      ++counts_.num_bursts;
      counts_.drafted_tokens += news.num_drafted;
      counts_.accepted_tokens += news.num_accepted;
      for (int i = 0; i < news.num_accepted; ++i)
        ++counts_.accepted_by_place[static_cast<size_t>(i)];
    }
    counts_.nonfinite_rows += news.not_finite;
    if (rows.samples && choice.num_generated() == 0 && !rows.decode)
      counts_.prompt_tokens += choice.params()->num_prompt;
    SequenceResult result = choice.Take(rows, std::move(news));
    counts_.generated_tokens += static_cast<int64_t>(result.tokens.size());
    if (!result.tokens.empty()) {
      RequestTimes& times = choice.times();
      if (times.first_token_us == 0) times.first_token_us = now_us;
      times.newest_token_us = now_us;
    }
    return result;
  }

  void Deliver(const SequenceResult& result) {
    const auto found = choices_.find(result.id);
    if (found == choices_.end()) return;
    Choice& choice = found->second;
    if (!choice.has_news()) return;
    TokenEvent event = choice.TakeEvent();
    event.cached_tokens = scheduler_.cached_tokens(result.id);
    const std::shared_ptr<LiveRequest> live = choice.live();  // outlives the choice
    if (result.finished) EndChoice(result.id, FinishReason::kNone);
    live->sink(std::move(event));
  }

  // Waits for work; false when the engine stops.
  bool Take() {
    std::vector<Arrival> arrivals;
    std::vector<std::pair<uint64_t, uint64_t>> cancels;
    std::vector<std::promise<int64_t>> flushes;
    bool stop = false;
    {
      std::unique_lock lock(mutex_);
      // Ticks while idle, so that a watchdog can tell idle from stuck.
      while (scheduler_.idle() && arrivals_.empty() && cancels_.empty() && flushes_.empty() &&
             !stop_) {
        stats_.last_progress_ms = NowUs() / 1000;
        wake_.wait_for(lock, std::chrono::milliseconds(500));
      }
      arrivals.swap(arrivals_);
      cancels.swap(cancels_);
      flushes.swap(flushes_);
      stop = stop_;
    }
    for (const Arrival& arrival : arrivals) Start(arrival);
    for (const auto& [request_id, choice] : cancels) TakeCancel(request_id, choice);
    for (auto& answer : flushes) answer.set_value(scheduler_.FlushCache());
    return !stop;
  }

  void Start(const Arrival& arrival) {
    const Request& request = arrival.live->request;
    const int64_t wanted = static_cast<int64_t>(request.prompt.size()) + request.max_tokens;
    const auto max_length = static_cast<int>(std::min<int64_t>(wanted, options_.limits.max_length));
    std::vector<SequenceId>& sequences = by_request_[request.id];
    for (int index = 0; index < request.num_choices; ++index) {
      auto params = std::make_shared<SequenceParams>();
      params->sampling = request.sampling;
      params->choice = static_cast<uint32_t>(index);
      params->num_prompt = static_cast<int>(request.prompt.size());
      params->max_length = max_length;
      params->stop_ids = request.sampling.stop_ids;
      if (!request.sampling.ignore_eos)
        params->stop_ids.insert(params->stop_ids.end(), options_.end_ids.begin(),
                                options_.end_ids.end());
      NewSequence added;
      added.id = next_sequence_++;
      added.prompt = request.prompt;
      added.max_tokens = max_length;
      added.priority = request.priority;
      if (request.deadline_ms > 0) added.deadline_ms = request.deadline_ms;
      added.salt = options_.prefix_cache ? request.salt : OwnSalt(request.id);
      added.turn_borders = request.turn_borders;
      added.waits_for_prompt_of = index == 0 ? 0 : sequences.front();
      added.score_prompt = index == 0 && request.sampling.num_prompt_logprobs >= 0;
      added.caches = options_.prefix_cache || request.num_choices > 1;
      if (request.max_drafts) added.max_drafts = *request.max_drafts;
      added.params = params;
      Choice choice(arrival.live, params, options_.end_ids);
      choice.times().arrival_us = arrival.time_us;
      choices_.emplace(added.id, std::move(choice));
      sequences.push_back(added.id);
      scheduler_.Add(std::move(added));
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
    LiveRequest& live = *choice.live();
    const uint64_t request_id = live.request.id;
    if (--live.num_live == 0) {
      by_request_.erase(request_id);
      const std::lock_guard lock(mutex_);
      live_ids_.erase(request_id);
      queued_.erase(request_id);
    }
    counts_.aborted += reason == FinishReason::kAbort;
    if (reason == FinishReason::kNone) return;
    choice.End(reason);
    live.sink(choice.TakeEvent());
  }

  void Publish() {
    const SchedulerCounters& counters = scheduler_.counters();
    const SlabPool& pool = scheduler_.pool();
    const std::lock_guard lock(mutex_);
    for (const uint64_t request_id : started_) queued_.erase(request_id);
    started_.clear();
    stats_ = counts_;
    stats_.num_running = scheduler_.num_running();
    stats_.num_steps = num_steps_;
    stats_.num_begun = num_begun_;
    stats_.used_full_slabs = pool.num_live_slabs(PageKind::kFull);
    stats_.used_slabs = stats_.used_full_slabs + pool.num_live_slabs(PageKind::kSliding);
    stats_.full_pages = pool.num_live_pages(PageKind::kFull);
    stats_.sliding_pages = pool.num_live_pages(PageKind::kSliding);
    stats_.idle_pages =
        pool.num_idle_pages(PageKind::kFull) + pool.num_idle_pages(PageKind::kSliding);
    stats_.preemptions = counters.retractions;
    stats_.recomputed_tokens = counters.recomputed_tokens;
    stats_.cache_queries = counters.cache_queries;
    stats_.cache_hits = counters.cache_hits;
    stats_.last_progress_ms = NowUs() / 1000;
  }

  // Waiting, nothing runs, nothing planned: never seen in the simulation, so it is said and the
  // head is given up rather than everybody behind it.
  void WatchForStall(bool has_rows) {
    const bool stalls = !has_rows && unread_.empty() && scheduler_.num_running() == 0 &&
                        scheduler_.num_waiting() > 0;
    num_stalled_ = stalls ? num_stalled_ + 1 : 0;
    if (num_stalled_ < 3) return;
    num_stalled_ = 0;
    ++counts_.stalls;
    LogError("scheduler stalled: {} wait, {} of {} slabs free", scheduler_.num_waiting(),
             scheduler_.pool().num_free_slabs(), scheduler_.pool().num_slabs());
    const SequenceId head = scheduler_.head_of_queue();
    scheduler_.Remove(head);
    EndChoice(head, FinishReason::kError);
  }

  const LoopOptions options_;

  // Engine thread only.
  Scheduler scheduler_;
  DraftPolicy drafts_;
  std::unique_ptr<DeviceThread> device_;
  std::deque<Unread> unread_;
  DraftPosition newest_position_ = DraftPosition::kNewest;
  std::unordered_map<SequenceId, Choice> choices_;
  std::unordered_map<uint64_t, std::vector<SequenceId>> by_request_;
  std::vector<uint64_t> started_;  // requests whose first step was launched since Publish
  SequenceId next_sequence_ = 1;
  int64_t num_steps_ = 0, num_begun_ = 0;
  int num_stalled_ = 0;
  StepLog log_;
  int64_t logged_hits_ = 0;
  EngineStats counts_;  // the totals, and what never changes

  mutable std::mutex mutex_;  // guards all below
  std::condition_variable wake_;
  bool stop_ = false;
  std::vector<Arrival> arrivals_;
  std::vector<std::pair<uint64_t, uint64_t>> cancels_;  // request, choice
  std::vector<std::promise<int64_t>> flushes_;
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
int64_t EngineLoop::FlushCache() { return impl_->FlushCache(); }
EngineStats EngineLoop::stats() const { return impl_->stats(); }

}  // namespace lapidary
