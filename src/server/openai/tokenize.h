// /tokenize, /detokenize and /tokenizer_info. All want a backend with a tokenizer.
#ifndef LAPIDARY_SERVER_OPENAI_TOKENIZE_H_
#define LAPIDARY_SERVER_OPENAI_TOKENIZE_H_

#include "io/json.h"
#include "server/openai/completion.h"

namespace lapidary {

// From checked fields: `prompt` as text, or `messages` through the chat template. A text gets <bos>
// unless add_special_tokens is false; the template brings its own.
Result<json::object> Tokenize(const json::object& fields, const Backend& backend);
Result<json::object> Detokenize(const json::object& fields, const Backend& backend);
json::object TokenizerInfo(const Backend& backend);

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_OPENAI_TOKENIZE_H_
