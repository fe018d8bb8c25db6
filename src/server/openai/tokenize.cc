#include "server/openai/tokenize.h"

#include <boost/json/value_from.hpp>

#include "server/openai/chat_request.h"
#include "server/openai/completion_request.h"
#include "server/openai/field_values.h"
#include "text/prompt_ids.h"

namespace lapidary {

Result<json::object> Tokenize(const json::object& fields, const Backend& backend) {
  const json::value* prompt = fields.if_contains("prompt");
  if (backend.tokenizer == nullptr) return NoTokenizer(prompt != nullptr ? "prompt" : "messages");
  if ((prompt == nullptr) == !fields.contains("messages"))
    return Error{"Give either 'prompt' or 'messages'.", "prompt", "invalid_value"};
  if (prompt != nullptr && !prompt->is_string())
    return Error{"'prompt' must be a string.", "prompt", "invalid_value"};
  std::vector<int32_t> ids;
  if (prompt != nullptr) {
    ids = EncodeText(*prompt, backend, BoolOf(fields, "add_special_tokens", true));
  } else {
    const auto pieces = RenderMessages(fields, backend);
    if (!pieces.ok()) return pieces.error();
    ids = EncodePrompt(*backend.tokenizer, pieces.value());
  }
  json::object reply{{"tokens", json::value_from(ids)},
                     {"count", ids.size()},
                     {"max_model_len", backend.engine->max_model_len()},
                     {"token_strs", nullptr}};
  if (BoolOf(fields, "return_token_strs", false)) {
    json::array names;
    for (const int32_t id : ids) names.emplace_back(backend.tokenizer->token(id));
    reply["token_strs"] = std::move(names);
  }
  return reply;
}

Result<json::object> Detokenize(const json::object& fields, const Backend& backend) {
  if (backend.tokenizer == nullptr) return NoTokenizer("tokens");
  const json::value* tokens = fields.if_contains("tokens");
  if (tokens == nullptr) return Error{"'tokens' is required.", "tokens", "invalid_value"};
  const std::string text =
      backend.tokenizer->Decode(IdsOf(tokens), BoolOf(fields, "skip_special_tokens", false));
  return json::object{{"prompt", text}, {"text", text}};
}

json::object TokenizerInfo(const Backend& backend) {
  const Tokenizer& tokenizer = *backend.tokenizer;
  json::object info{{"tokenizer_class", "GemmaTokenizer"},
                    {"vocab_size", tokenizer.vocab_size()},
                    {"model_max_length", backend.engine->max_model_len()},
                    {"chat_template", nullptr}};
  if (!backend.chat_template_text.empty()) info["chat_template"] = backend.chat_template_text;
  for (const char* name : {"bos", "eos", "pad", "unk"}) {
    const std::string content = std::string("<") + name + ">";
    const bool there = tokenizer.Find(content).has_value();
    info[std::string(name) + "_token"] = there ? json::value(content) : json::value(nullptr);
  }
  return info;
}

}  // namespace lapidary
