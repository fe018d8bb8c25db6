// What requests gave, gathered from their events, and the comparison of two of them to the bit.
#ifndef LAPIDARY_TESTS_CROWD_ANSWERS_H_
#define LAPIDARY_TESTS_CROWD_ANSWERS_H_

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "engine/request.h"

namespace lapidary {

// Of one choice.
struct Answer {
  std::vector<int32_t> tokens;
  std::vector<TokenLogprobs> logprobs;
  std::vector<std::optional<TokenLogprobs>> prompt_logprobs;
  FinishReason finish = FinishReason::kNone;
  std::optional<int32_t> stop_id;
  int cached_tokens = 0, drafted_tokens = 0, accepted_tokens = 0;
};

// Empty when `got` is `alone` to the bit, else what differs first. `cut`: `got` was ended from
// outside and must be a beginning of it.
std::string Difference(const Answer& alone, const Answer& got, bool cut = false);

// Thread-safe; its sinks must not outlive it.
class Answers {
 public:
  TokenSink Sink();
  // Until this many choices have ended, at most ten minutes.
  bool Wait(size_t num_ended);
  size_t num_ended() const;
  // Tokens so far, of all choices.
  size_t num_tokens() const;
  Answer At(uint64_t request_id, int choice = 0) const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<uint64_t, int>, Answer> answers_;
  size_t num_ended_ = 0, num_tokens_ = 0;
};

// Submits a request and waits for all its choices.
template <typename AnyEngine>
std::vector<Answer> Ask(AnyEngine& engine, const Request& request) {
  Answers answers;
  const auto status = engine.Submit(request, answers.Sink());
  CHECK(status.ok(), "{}", status.error().message);
  CHECK(answers.Wait(static_cast<size_t>(request.num_choices)), "no answer");
  std::vector<Answer> result;
  result.reserve(static_cast<size_t>(request.num_choices));
  for (int choice = 0; choice < request.num_choices; ++choice)
    result.push_back(answers.At(request.id, choice));
  return result;
}

// Waits until the engine holds nothing but its prefix cache.
template <typename AnyEngine>
bool BecomesIdle(const AnyEngine& engine) {
  for (int i = 0; i < 5000; ++i) {
    const auto stats = engine.stats();
    if (stats.used_slabs == 0 && stats.num_running == 0 && stats.num_queued == 0) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return false;
}

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_CROWD_ANSWERS_H_
