// ChoiceUsage: what one choice has cost so far, for `usage` and `timings`.
#ifndef LAPIDARY_SERVER_OPENAI_CHOICE_USAGE_H_
#define LAPIDARY_SERVER_OPENAI_CHOICE_USAGE_H_

#include <cstdint>

#include "engine/request.h"
#include "io/json.h"

namespace lapidary {

struct ChoiceUsage {
  int num_tokens = 0;  // billed
  int cached_tokens = 0;
  int drafted_tokens = 0, accepted_tokens = 0;
  RequestTimes times;

  // The choice keeps the first `num_kept` of the event's tokens; the rest came after a stop string
  // in the same step. They are not billed, and their drafts count as rejected.
  void Take(const TokenEvent& event, int num_kept);
  // A choice of the same reply; the tokens and drafts of both.
  void Add(const ChoiceUsage& other);
};

// The `usage` of a reply whose choices sum up to `all`.
json::object UsageJson(int64_t prompt_tokens, const ChoiceUsage& all, int64_t reasoning_tokens);

// The `timings` of a choice: {queue_ms, prefill_ms, decode_ms, cached, drafted, accepted}.
json::object TimingsJson(const ChoiceUsage& choice);

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_OPENAI_CHOICE_USAGE_H_
