// What completions and chat requests share on their way from checked fields to the engine.
#ifndef LAPIDARY_SERVER_OPENAI_COMPLETION_REQUEST_H_
#define LAPIDARY_SERVER_OPENAI_COMPLETION_REQUEST_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "io/json.h"
#include "server/openai/completion.h"

namespace lapidary {

SamplingParams SamplingOf(const json::object& fields, const Backend& backend);
std::vector<int32_t> EncodeText(const json::value& text, const Backend& backend, bool add_bos);
// Fields whose meaning depends on another field; `input` is required.
std::optional<Error> CheckTogether(const json::object& fields, const char* input);
void FillForm(const json::object& fields, ReplyForm& form);
// Takes the last of `ids` that `truncate_prompt_tokens` leaves and bounds what may be generated, at
// most `max_tokens`, by the context. An Error names `param`.
std::optional<Error> SetPrompt(Request& request, std::vector<int32_t> ids,
                               const json::object& fields, double max_tokens,
                               const Backend& backend, const char* param);
// The parts of a request that do not change its tokens: priority, drafts, and under which salt and
// turn borders its prompt is cached. Wants the prompt.
void FillScheduling(const json::object& fields, const Backend& backend, const ReplyForm& form,
                    Request& request);

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_OPENAI_COMPLETION_REQUEST_H_
