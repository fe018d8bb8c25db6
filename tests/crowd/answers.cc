#include "tests/crowd/answers.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <bit>

namespace lapidary {
namespace {

bool SameBits(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); }

bool SameBits(const std::vector<std::pair<int32_t, float>>& a,
              const std::vector<std::pair<int32_t, float>>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i].first != b[i].first || !SameBits(a[i].second, b[i].second)) return false;
  return true;
}

bool SameBits(const TokenLogprobs& a, const TokenLogprobs& b) {
  return a.token == b.token && SameBits(a.logprob, b.logprob) && SameBits(a.top, b.top) &&
         SameBits(a.asked, b.asked);
}

bool SameBits(const std::optional<TokenLogprobs>& a, const std::optional<TokenLogprobs>& b) {
  return a.has_value() == b.has_value() && (!a || SameBits(*a, *b));
}

}  // namespace

std::string Difference(const Answer& alone, const Answer& got, bool cut) {
  if (got.tokens.size() > alone.tokens.size())
    return fmt::format("{} tokens, alone {}", got.tokens.size(), alone.tokens.size());
  for (size_t i = 0; i < got.tokens.size(); ++i)
    if (got.tokens[i] != alone.tokens[i])
      return fmt::format("token {} is {}, alone {}", i, got.tokens[i], alone.tokens[i]);
  const size_t num_logprobs = alone.logprobs.empty() ? 0 : got.tokens.size();
  if (got.logprobs.size() != num_logprobs)
    return fmt::format("{} logprobs for {} tokens", got.logprobs.size(), got.tokens.size());
  for (size_t i = 0; i < num_logprobs; ++i)
    if (!SameBits(alone.logprobs[i], got.logprobs[i]))
      return fmt::format("logprob {} is {:.9g}, alone {:.9g}", i, got.logprobs[i].logprob,
                         alone.logprobs[i].logprob);
  if (cut && got.finish == FinishReason::kAbort) return "";
  if (got.tokens.size() != alone.tokens.size() || got.finish != alone.finish ||
      got.stop_id != alone.stop_id)
    return fmt::format("ends with {} after {} tokens, alone with {} after {}",
                       static_cast<int>(got.finish), got.tokens.size(),
                       static_cast<int>(alone.finish), alone.tokens.size());
  if (got.prompt_logprobs.size() != alone.prompt_logprobs.size())
    return fmt::format("{} prompt logprobs, alone {}", got.prompt_logprobs.size(),
                       alone.prompt_logprobs.size());
  for (size_t i = 0; i < got.prompt_logprobs.size(); ++i)
    if (!SameBits(alone.prompt_logprobs[i], got.prompt_logprobs[i]))
      return fmt::format("prompt logprob {} differs", i);
  return "";
}

TokenSink Answers::Sink() {
  return [this](TokenEvent&& event) {
    const std::lock_guard lock(mutex_);
    Answer& answer = answers_[{event.request_id, event.choice}];
    EXPECT_EQ(answer.finish, FinishReason::kNone) << "an event after the last";
    num_tokens_ += event.tokens.size();
    answer.tokens.insert(answer.tokens.end(), event.tokens.begin(), event.tokens.end());
    for (auto& entry : event.logprobs) answer.logprobs.push_back(std::move(entry));
    for (auto& entry : event.prompt_logprobs) answer.prompt_logprobs.push_back(std::move(entry));
    answer.finish = event.finish;
    answer.stop_id = event.stop_id;
    answer.cached_tokens = event.cached_tokens;
    answer.drafted_tokens = event.drafted_tokens;
    answer.accepted_tokens = event.accepted_tokens;
    num_ended_ += event.finish != FinishReason::kNone;
    changed_.notify_all();
  };
}

bool Answers::Wait(size_t num_ended) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::minutes(10), [&] { return num_ended_ >= num_ended; });
}

size_t Answers::num_ended() const {
  const std::lock_guard lock(mutex_);
  return num_ended_;
}

size_t Answers::num_tokens() const {
  const std::lock_guard lock(mutex_);
  return num_tokens_;
}

Answer Answers::At(uint64_t request_id, int choice) const {
  const std::lock_guard lock(mutex_);
  const auto found = answers_.find({request_id, choice});
  return found == answers_.end() ? Answer{} : found->second;
}

}  // namespace lapidary
