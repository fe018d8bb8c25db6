#include "server/monitor/metered_engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lapidary {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kRememberedEnds = 64;
constexpr int kLongestRetry = 60;  // seconds

}  // namespace

// One request's choices.
class MeteredEngine::Watch {
 public:
  Watch(const Request& request, std::shared_ptr<RequestMetrics> metrics)
      : metrics_(std::move(metrics)),
        num_prompt_(static_cast<int>(request.prompt.size())),
        num_open_(request.num_choices),
        choices_(static_cast<size_t>(request.num_choices)) {}

  // True when this was the request's last choice.
  bool See(const TokenEvent& event) {
    const std::lock_guard lock(mutex_);
    Choice& choice = choices_[static_cast<size_t>(event.choice)];
    if (choice.over) return false;
    const RequestTimes& times = event.times;
    if (!event.tokens.empty()) {
      if (choice.num_tokens == 0) {
        metrics_->time_to_first_token.Observe(Seconds(times.arrival_us, times.newest_token_us));
        if (event.choice == 0) metrics_->computed_tokens.Observe(num_prompt_ - event.cached_tokens);
      } else {
        metrics_->inter_token.Observe(Seconds(choice.times.newest_token_us, times.newest_token_us));
      }
      choice.num_tokens += static_cast<int>(event.tokens.size());
      choice.times = times;
    }
    return event.finish != FinishReason::kNone && End(choice, event.finish);
  }

  bool EndChoice(int index) {
    const std::lock_guard lock(mutex_);
    if (index < 0 || static_cast<size_t>(index) >= choices_.size()) return false;
    Choice& choice = choices_[static_cast<size_t>(index)];
    return !choice.over && End(choice, FinishReason::kStop);
  }

 private:
  struct Choice {
    int num_tokens = 0;
    bool over = false;
    RequestTimes times;
  };
  static double Seconds(int64_t from_us, int64_t to_us) {
    return static_cast<double>(to_us - from_us) / 1e6;
  }
  bool End(Choice& choice, FinishReason reason) {
    choice.over = true;
    metrics_->Finished(reason, choice.times, choice.num_tokens);
    return --num_open_ == 0;
  }

  std::shared_ptr<RequestMetrics> metrics_;
  int num_prompt_, num_open_;
  std::mutex mutex_;
  std::vector<Choice> choices_;
};

struct MeteredEngine::Watches {
  std::shared_ptr<Watch> Find(uint64_t request_id) {
    const std::lock_guard lock(mutex);
    const auto found = live.find(request_id);
    return found == live.end() ? nullptr : found->second;
  }
  void Erase(uint64_t request_id) {
    const std::lock_guard lock(mutex);
    live.erase(request_id);
  }
  void Ended(uint64_t request_id) {
    Erase(request_id);
    const std::lock_guard lock(mutex);
    ends.push_back(Clock::now());
    if (ends.size() > kRememberedEnds) ends.pop_front();
  }
  std::mutex mutex;
  std::unordered_map<uint64_t, std::shared_ptr<Watch>> live;  // guarded by mutex
  std::deque<Clock::time_point> ends;                         // guarded by mutex
};

MeteredEngine::MeteredEngine(std::shared_ptr<TokenEngine> engine,
                             std::shared_ptr<RequestMetrics> metrics)
    : engine_(std::move(engine)),
      metrics_(std::move(metrics)),
      watches_(std::make_shared<Watches>()) {}

Status MeteredEngine::Submit(Request request, TokenSink sink) {
  const uint64_t id = request.id;
  const auto watch = std::make_shared<Watch>(request, metrics_);
  const auto num_prompt = static_cast<double>(request.prompt.size());
  const int max_tokens = request.max_tokens, num_choices = request.num_choices;
  {
    const std::lock_guard lock(watches_->mutex);
    watches_->live[id] = watch;
  }
  const Status status =
      engine_->Submit(std::move(request),
                      [id, watch, watches = watches_, sink = std::move(sink)](TokenEvent&& event) {
                        if (watch->See(event)) watches->Ended(id);
                        sink(std::move(event));
                      });
  if (!status.ok()) {
    watches_->Erase(id);
    metrics_->Refused(status.error().code);
    return status;
  }
  metrics_->num_requests.Increment();
  metrics_->prompt_tokens.Observe(num_prompt);
  metrics_->max_tokens.Observe(max_tokens);
  metrics_->num_choices.Observe(num_choices);
  return status;
}

void MeteredEngine::CancelChoice(uint64_t request_id, int choice) {
  if (const std::shared_ptr<Watch> watch = watches_->Find(request_id))
    if (watch->EndChoice(choice)) watches_->Ended(request_id);
  engine_->CancelChoice(request_id, choice);
}

int MeteredEngine::retry_after_s() const {
  const int num_waiting = engine_->stats().num_queued;
  const std::lock_guard lock(watches_->mutex);
  if (watches_->ends.empty()) return 1;
  const double seconds =
      std::chrono::duration<double>(Clock::now() - watches_->ends.front()).count();
  const double wait = seconds / static_cast<double>(watches_->ends.size()) * num_waiting;
  return static_cast<int>(std::clamp(std::ceil(wait), 1.0, double{kLongestRetry}));
}

}  // namespace lapidary
