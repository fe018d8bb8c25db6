// How tokens and their logprobs are written in replies.
#ifndef LAPIDARY_SERVER_OPENAI_LOGPROB_JSON_H_
#define LAPIDARY_SERVER_OPENAI_LOGPROB_JSON_H_

#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "io/json.h"
#include "text/tokenizer.h"

namespace lapidary {

// The token's text. What is not UTF-8 is named by its bytes, `bytes:\xNN`, so that keys stay
// unique; `token_id:N` without a tokenizer or when ids are asked for.
std::string TokenName(const Tokenizer* tokenizer, bool as_id, int32_t id);

// The alternatives of one position: the top ones and those that were asked for by id, each once.
std::vector<std::pair<int32_t, float>> Alternatives(const TokenLogprobs& entry);

// vLLM's prompt_logprobs: null for the first token, then id -> {logprob, rank, decoded_token}. The
// rank is null for a token that is not among the top ones.
json::array PromptLogprobsJson(const Tokenizer* tokenizer,
                               const std::vector<std::optional<TokenLogprobs>>& entries);

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_OPENAI_LOGPROB_JSON_H_
