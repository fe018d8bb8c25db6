// What goes into the engine and what comes out: token ids and numbers, no strings.
#ifndef LAPIDARY_ENGINE_REQUEST_H_
#define LAPIDARY_ENGINE_REQUEST_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "kv/prefix_cache.h"
#include "ops/row_sampler.h"
#include "ops/slot_states.h"

namespace lapidary {

inline constexpr int kMaxLogprobs = 20;
inline constexpr int kMaxChoices = 8;
inline constexpr int kMaxLogitBias = 1024;
inline constexpr int kMaxStopIds = 64;
inline constexpr int kMaxBadWords = 128;

// Filters apply in this order: suppress, bias, penalties, mask, temperature, top-k, top-p, min-p.
// All ids are < V; ranges are the field table's of server/openai/schema.cc, checked again by
// Engine::Submit.
struct SamplingParams {
  float temperature = 1.0f;  // < 1e-5 is greedy
  int top_k = 0;             // 0: off
  float top_p = 1.0f;
  float min_p = 0.0f;
  float presence_penalty = 0.0f, frequency_penalty = 0.0f;  // over generated tokens
  float repetition_penalty = 1.0f;                          // over prompt and generated tokens
  uint64_t seed = 0;
  int min_tokens = 0;       // stop ids are held off until then
  bool ignore_eos = false;  // ignores the model's end ids only, not stop_ids
  std::vector<int32_t> stop_ids;
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::vector<int32_t> allowed_ids;             // empty: all
  std::vector<std::vector<int32_t>> bad_words;  // token sequences whose last token is masked
  int num_logprobs = -1;             // -1: off; 0..20 top alternatives beside the sampled token
  int num_prompt_logprobs = -1;      // likewise for prompt positions
  std::vector<int32_t> logprob_ids;  // logprobs of these ids at each generated position
};

struct Request {
  uint64_t id = 0;              // unique among live requests, given by the caller
  std::vector<int32_t> prompt;  // 1 .. context - 1 ids
  SamplingParams sampling;
  int max_tokens = 16;  // 0 only to score a prompt
  int num_choices = 1;
  int priority = 0;  // smaller runs first
  // On the steady clock; the request is ended with kAbort when it passes. 0: none.
  int64_t deadline_ms = 0;
  CacheSalt salt{};                   // prompts share cached pages only under the same salt
  std::vector<int32_t> turn_borders;  // positions in the prompt where a turn begins, ascending
  std::optional<int> max_drafts;      // 0 .. 8 drafts a burst; unset: the engine's
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kAbort, kError };

// Of one choice, microseconds on the steady clock; 0: not yet.
struct RequestTimes {
  int64_t arrival_us = 0, first_step_us = 0, first_token_us = 0, newest_token_us = 0;
};

// One choice's news of one step.
struct TokenEvent {
  uint64_t request_id = 0;
  int choice = 0;
  std::vector<int32_t> tokens;          // new ids, a stop id included as the last one
  std::vector<TokenLogprobs> logprobs;  // one per token if asked
  std::vector<std::optional<TokenLogprobs>>
      prompt_logprobs;  // with the first event of choice 0, if asked; [0] is empty
  FinishReason finish = FinishReason::kNone;
  std::optional<int32_t> stop_id;               // the end or stop id that ended it
  int cached_tokens = 0;                        // of the prompt
  int drafted_tokens = 0, accepted_tokens = 0;  // totals so far
  RequestTimes times;
};

// Called on the engine thread; must not block and must not call the engine's Stop.
using TokenSink = std::function<void(TokenEvent&& event)>;

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_REQUEST_H_
