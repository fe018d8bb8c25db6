// From checked chat fields to a prompt and a request.
#ifndef LAPIDARY_SERVER_OPENAI_CHAT_REQUEST_H_
#define LAPIDARY_SERVER_OPENAI_CHAT_REQUEST_H_

#include <vector>

#include "io/json.h"
#include "server/openai/completion.h"
#include "text/chat_template.h"
#include "text/reply_parser.h"

namespace lapidary {

// The parts of a chat request that its reply depends on.
struct ChatForm {
  DeclaredTools tools;
  bool start_in_thought = false, include_reasoning = true, parallel_calls = true;
};

// The prompt of `messages` and `tools` in the model's template. Errors name the path.
Result<std::vector<PromptPiece>> RenderMessages(const json::object& fields, const Backend& backend);

// One request from checked chat fields.
Result<Request> MakeChatRequest(const json::object& fields, const Backend& backend, ReplyForm& form,
                                ChatForm& chat);

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_OPENAI_CHAT_REQUEST_H_
