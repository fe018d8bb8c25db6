#include "server/openai/choice_usage.h"

#include <algorithm>

namespace lapidary {

void ChoiceUsage::Take(const TokenEvent& event, int num_kept) {
  // A step's tokens are its accepted drafts and the target's own one behind them.
  const int accepted = event.accepted_tokens - accepted_tokens;
  accepted_tokens += std::min(accepted, num_kept);
  num_tokens += num_kept;
  drafted_tokens = event.drafted_tokens;
  cached_tokens = std::max(cached_tokens, event.cached_tokens);
  times = event.times;
}

void ChoiceUsage::Add(const ChoiceUsage& other) {
  num_tokens += other.num_tokens;
  drafted_tokens += other.drafted_tokens;
  accepted_tokens += other.accepted_tokens;
}

json::object UsageJson(int64_t prompt_tokens, const ChoiceUsage& all, int64_t reasoning_tokens) {
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", all.num_tokens},
          {"total_tokens", prompt_tokens + all.num_tokens},
          {"prompt_tokens_details", json::object{{"cached_tokens", all.cached_tokens}}},
          {"completion_tokens_details",
           json::object{{"reasoning_tokens", reasoning_tokens},
                        {"accepted_prediction_tokens", all.accepted_tokens},
                        {"rejected_prediction_tokens", all.drafted_tokens - all.accepted_tokens}}}};
}

json::object TimingsJson(const ChoiceUsage& choice) {
  // 0 stands for what has not happened.
  const auto milliseconds = [](int64_t from_us, int64_t to_us) {
    return from_us == 0 || to_us == 0 ? 0.0 : static_cast<double>(to_us - from_us) / 1000;
  };
  const RequestTimes& times = choice.times;
  return {{"queue_ms", milliseconds(times.arrival_us, times.first_step_us)},
          {"prefill_ms", milliseconds(times.first_step_us, times.first_token_us)},
          {"decode_ms", milliseconds(times.first_token_us, times.newest_token_us)},
          {"cached_tokens", choice.cached_tokens},
          {"drafted_tokens", choice.drafted_tokens},
          {"accepted_tokens", choice.accepted_tokens}};
}

}  // namespace lapidary
