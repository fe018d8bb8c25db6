#include "server/openai/chat_request.h"

#include <algorithm>
#include <optional>

#include "server/openai/completion_request.h"
#include "server/openai/field_values.h"
#include "text/prompt_ids.h"

namespace lapidary {
namespace {

// OpenAI's older form of calls and their results: rendered as a call and a tool's.
void ModernizeMessage(json::object& message) {
  if (message.at("role") == "function") message["role"] = "tool";
  const json::value* function = message.if_contains("function_call");
  if (function == nullptr || message.contains("tool_calls") || !function->is_object()) return;
  message["tool_calls"] = json::array{json::object{{"type", "function"}, {"function", *function}}};
  message.erase("function_call");
}

// Tool-call arguments arrive as JSON text and are rendered as objects.
std::optional<Error> ParseArguments(json::value& call, const std::string& path) {
  json::object* function = nullptr;
  if (json::object* object = call.if_object())
    if (json::value* inner = object->if_contains("function")) function = inner->if_object();
  if (function == nullptr) return Error{"A tool call must hold a function.", path, "invalid_value"};
  json::value* arguments = function->if_contains("arguments");
  if (arguments == nullptr || !arguments->is_string()) return {};
  Result<json::value> parsed = ParseJson(StringOf(*arguments), "arguments");
  if (!parsed.ok() || !parsed.value().is_object())
    return Error{"The arguments of a tool call must be a JSON object.",
                 path + ".function.arguments", "invalid_value"};
  *arguments = std::move(parsed).value();
  return {};
}

std::optional<Error> CheckContent(const json::value& content, const std::string& path) {
  if (content.is_string() || content.is_null()) return {};
  if (!content.is_array())
    return Error{"The content must be a string or a list of parts.", path, "invalid_value"};
  for (size_t i = 0; i < content.get_array().size(); ++i) {
    const json::object* part = content.get_array()[i].if_object();
    const json::value* type = part == nullptr ? nullptr : part->if_contains("type");
    const json::value* text = part == nullptr ? nullptr : part->if_contains("text");
    if (type == nullptr || *type != "text" || text == nullptr || !text->is_string())
      return Error{"Only text parts are supported yet.", fmt::format("{}[{}]", path, i),
                   "unsupported_value"};
  }
  return {};
}

Result<json::array> CheckedMessages(const json::array& given) {
  json::array messages = given;
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string path = fmt::format("messages[{}]", i);
    json::object* message = messages[i].if_object();
    const json::value* role = message == nullptr ? nullptr : message->if_contains("role");
    if (role == nullptr || !role->is_string())
      return Error{"A message must have a role.", path + ".role", "invalid_value"};
    const std::string_view name = role->get_string();
    if (name != "system" && name != "developer" && name != "user" && name != "assistant" &&
        name != "tool" && name != "function")
      return Error{"The role must be system, developer, user, assistant, tool or function.",
                   path + ".role", "invalid_value"};
    ModernizeMessage(*message);
    if (const json::value* content = message->if_contains("content"))
      if (auto error = CheckContent(*content, path + ".content")) return *error;
    json::value* calls = message->if_contains("tool_calls");
    if (calls == nullptr || calls->is_null()) continue;
    if (!calls->is_array())
      return Error{"tool_calls must be a list.", path + ".tool_calls", "invalid_value"};
    for (size_t j = 0; j < calls->get_array().size(); ++j)
      if (auto error =
              ParseArguments(calls->get_array()[j], fmt::format("{}.tool_calls[{}]", path, j)))
        return *error;
  }
  return messages;
}

Result<RenderOptions> ReadRenderOptions(const json::object& fields, RenderOptions options) {
  options.add_generation_prompt = BoolOf(fields, "add_generation_prompt", true);
  if (const json::value* effort = fields.if_contains("reasoning_effort")) {
    const std::string name = StringOf(*effort);
    options.enable_thinking = name != "none";
    if (name != "none" && name != "minimal" && name != "low" && name != "medium" &&
        name != "high" && name != "xhigh" && name != "max")
      return Error{"reasoning_effort must be none, minimal, low, medium, high, xhigh or max.",
                   "reasoning_effort", "invalid_value"};
  }
  const json::value* kwargs = fields.if_contains("chat_template_kwargs");
  if (kwargs == nullptr) return options;
  for (const auto& [key, value] : kwargs->get_object()) {
    const std::string path = "chat_template_kwargs." + std::string(key.substr(0, 40));
    if (key == "tokenize" || key == "messages" || key == "tools")
      return Error{"This template argument may not be set.", path, "invalid_value"};
    if (key != "enable_thinking" && key != "preserve_thinking") continue;
    if (!value.is_bool())
      return Error{"This template argument must be true or false.", path, "invalid_value"};
    (key == "enable_thinking" ? options.enable_thinking : options.preserve_thinking) =
        value.get_bool();
  }
  return options;
}

// A revision by its name or its text; no other template runs.
std::optional<TemplateRevision> RevisionOf(const json::object& fields, const Backend& backend) {
  const json::value* given = fields.if_contains("chat_template");
  if (given == nullptr) return backend.chat_template;
  if (const auto named = TemplateByName(given->get_string())) return named;
  return RecogniseTemplate(given->get_string());
}

// tool_choice "none" promises that nothing is called: the model is not told of the tools and cannot
// begin a call.
bool MayCall(const json::object& fields) {
  return !fields.contains("tool_choice") || fields.at("tool_choice") != "none";
}

// Null when there are none.
const json::array* ToolsOf(const json::object& fields) {
  const json::value* tools = fields.if_contains("tools");
  return !MayCall(fields) || tools == nullptr || tools->get_array().empty() ? nullptr
                                                                            : &tools->get_array();
}

}  // namespace

Result<std::vector<PromptPiece>> RenderMessages(const json::object& fields,
                                                const Backend& backend) {
  Result<json::array> messages = CheckedMessages(fields.at("messages").get_array());
  if (!messages.ok()) return messages.error();
  const Result<RenderOptions> options = ReadRenderOptions(fields, backend.chat_defaults);
  if (!options.ok()) return options.error();
  const std::optional<TemplateRevision> revision = RevisionOf(fields, backend);
  if (!revision)
    return Error{"'chat_template' must be edge, thinkprefill, april or the text of one of these.",
                 "chat_template", "template_mismatch"};
  auto pieces = RenderChat(*revision, messages.value(), ToolsOf(fields), options.value());
  if (pieces.ok()) return pieces;
  Error error = pieces.error();
  if (error.code.empty()) error.code = "invalid_value";
  return error;
}

Result<Request> MakeChatRequest(const json::object& fields, const Backend& backend, ReplyForm& form,
                                ChatForm& chat) {
  if (std::optional<Error> error = CheckTogether(fields, "messages")) return *error;
  if (backend.tokenizer == nullptr) return NoTokenizer("messages");
  if (const json::value* choice = fields.if_contains("tool_choice");
      choice != nullptr && *choice != "auto" && *choice != "none")
    return Error{"'tool_choice' other than auto and none is not supported yet.", "tool_choice",
                 "unsupported_value"};
  json::object plain = fields;
  plain.erase("logprobs");  // a flag here, a count in completions
  FillForm(plain, form);
  if (BoolOf(fields, "logprobs", false))
    form.num_logprobs = std::max(form.num_logprobs, IntOf(fields, "top_logprobs", 0));
  else if (fields.contains("top_logprobs") && IntOf(fields, "top_logprobs", 0) > 0)
    return Error{"'top_logprobs' needs 'logprobs': true.", "top_logprobs", "invalid_value"};
  const auto pieces = RenderMessages(fields, backend);
  if (!pieces.ok()) return pieces.error();
  chat.start_in_thought = backend.parses_reasoning && EndsInThought(pieces.value());
  chat.include_reasoning = BoolOf(fields, "include_reasoning", true);
  chat.parallel_calls = BoolOf(fields, "parallel_tool_calls", true);
  if (backend.parses_tools) chat.tools = DeclaredTools::Of(ToolsOf(fields));
  Request request;
  request.sampling = SamplingOf(fields, backend);
  if (const auto call_open = ReplyTokens::Of(*backend.tokenizer).call_open;
      call_open && !MayCall(fields))
    request.sampling.bad_words.push_back({*call_open});
  request.sampling.num_logprobs = form.num_logprobs;
  request.num_choices = form.n;
  const int context = backend.engine->max_model_len();
  if (std::optional<Error> error =
          SetPrompt(request, EncodePrompt(*backend.tokenizer, pieces.value()), fields,
                    NumberOf(fields, "max_completion_tokens", context), backend, "messages"))
    return *error;
  FillScheduling(fields, backend, form, request);
  return request;
}

}  // namespace lapidary
