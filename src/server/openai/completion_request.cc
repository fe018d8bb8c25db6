// MakeRequests: checked fields of /v1/completions to engine requests.
#include <algorithm>
#include <charconv>
#include <random>

#include "server/openai/completion.h"
#include "text/prompt_ids.h"

namespace lapidary {
namespace {

double Number(const json::object& fields, std::string_view name, double unset) {
  const json::value* value = fields.if_contains(name);
  return value == nullptr ? unset : value->to_number<double>();
}
int Int(const json::object& fields, std::string_view name, int unset) {
  return static_cast<int>(Number(fields, name, unset));
}
bool Bool(const json::object& fields, std::string_view name, bool unset) {
  const json::value* value = fields.if_contains(name);
  return value == nullptr ? unset : value->get_bool();
}
std::string String(const json::value& value) { return std::string(value.get_string()); }

std::vector<int32_t> Ids(const json::value* value) {
  std::vector<int32_t> ids;
  if (value != nullptr)
    for (const json::value& item : value->get_array())
      ids.push_back(static_cast<int32_t>(item.get_int64()));
  return ids;
}

uint64_t Seed(const json::object& fields) {
  if (const json::value* seed = fields.if_contains("seed"))
    return static_cast<uint64_t>(
        seed->is_int64() ? seed->get_int64() : static_cast<int64_t>(seed->to_number<double>()));
  static thread_local std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

SamplingParams Sampling(const json::object& fields, const Backend& backend) {
  SamplingParams params;
  params.temperature =
      static_cast<float>(Number(fields, "temperature", backend.defaults.temperature));
  params.top_p = static_cast<float>(Number(fields, "top_p", backend.defaults.top_p));
  params.min_p = static_cast<float>(Number(fields, "min_p", 0));
  params.top_k = std::max(0, Int(fields, "top_k", backend.defaults.top_k));
  params.presence_penalty = static_cast<float>(Number(fields, "presence_penalty", 0));
  params.frequency_penalty = static_cast<float>(Number(fields, "frequency_penalty", 0));
  params.repetition_penalty = static_cast<float>(Number(fields, "repetition_penalty", 1));
  params.seed = Seed(fields);
  params.min_tokens = Int(fields, "min_tokens", 0);
  params.ignore_eos = Bool(fields, "ignore_eos", false);
  params.stop_ids = Ids(fields.if_contains("stop_token_ids"));
  params.allowed_ids = Ids(fields.if_contains("allowed_token_ids"));
  if (const json::value* bias = fields.if_contains("logit_bias"))
    for (const auto& [key, value] : bias->get_object()) {
      int32_t id = 0;
      std::from_chars(key.data(), key.data() + key.size(), id);
      params.logit_bias.emplace_back(id, value.to_number<float>());
    }
  if (const json::value* words = fields.if_contains("bad_words"))
    for (const json::value& word : words->get_array()) {
      std::vector<int32_t> ids =
          backend.tokenizer->Encode(String(word), Tokenizer::Specials::kAsText);
      if (!ids.empty()) params.bad_words.push_back(std::move(ids));
    }
  return params;
}

std::vector<int32_t> EncodeText(const json::value& text, const Backend& backend, bool add_bos) {
  std::vector<int32_t> ids = backend.tokenizer->Encode(String(text));
  const std::optional<int32_t> bos = backend.tokenizer->Find("<bos>");
  if (add_bos && bos && (ids.empty() || ids[0] != *bos)) ids.insert(ids.begin(), *bos);
  return ids;
}

std::vector<std::vector<int32_t>> Prompts(const json::object& fields, const Backend& backend) {
  const json::value& prompt = fields.at("prompt");
  const bool add_bos = Bool(fields, "add_special_tokens", true);
  if (prompt.is_string()) return {EncodeText(prompt, backend, add_bos)};
  const json::array& list = prompt.get_array();
  if (list[0].is_int64()) return {Ids(&prompt)};
  std::vector<std::vector<int32_t>> prompts;
  for (const json::value& item : list)
    prompts.push_back(item.is_string() ? EncodeText(item, backend, add_bos) : Ids(&item));
  return prompts;
}

// Fields whose meaning depends on another field.
std::optional<Error> CheckTogether(const json::object& fields, const char* input) {
  const auto invalid = [](const char* param, const char* message) {
    return Error{message, param, "invalid_value"};
  };
  if (!fields.contains(input))
    return Error{fmt::format("'{}' is required.", input), input, "invalid_value"};
  const int n = Int(fields, "n", 1), best_of = Int(fields, "best_of", n);
  if (best_of != 1 && best_of != n) return invalid("best_of", "'best_of' must be null, 1 or n.");
  const json::value* max_tokens = fields.if_contains("max_completion_tokens");
  if (max_tokens != nullptr && Int(fields, "min_tokens", 0) > max_tokens->to_number<double>())
    return invalid("min_tokens", "'min_tokens' must be at most 'max_tokens'.");
  if (const json::value* format = fields.if_contains("response_format")) {
    const json::value* type =
        format->is_object() ? format->get_object().if_contains("type") : nullptr;
    if (type == nullptr || !type->is_string() || type->get_string() != "text")
      return Error{"'response_format' other than text is not supported yet.", "response_format",
                   "unsupported_value"};
  }
  if (const json::value* options = fields.if_contains("stream_options"))
    for (const auto& [key, value] : options->get_object())
      if (!value.is_bool() && !value.is_null())
        return invalid("stream_options", "'stream_options' must hold true or false.");
  if (const json::value* id = fields.if_contains("request_id"))
    for (const char c : id->get_string())
      if (!(std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_' || c == ':' ||
            c == '-'))
        return invalid("request_id", "'request_id' may hold letters, digits, '.', '_', ':', '-'.");
  return {};
}

void FillForm(const json::object& fields, ReplyForm& form) {
  form.stream = Bool(fields, "stream", false);
  if (const json::value* options = fields.if_contains("stream_options")) {
    const auto is_true = [&](const char* name) {
      const json::value* value = options->get_object().if_contains(name);
      return value != nullptr && value->is_bool() && value->get_bool();
    };
    form.include_usage = is_true("include_usage");
    form.continuous_usage = is_true("continuous_usage_stats");
  }
  form.echo = Bool(fields, "echo", false);
  form.skip_special = Bool(fields, "skip_special_tokens", true);
  form.keep_stop = Bool(fields, "include_stop_str_in_output", false);
  form.num_logprobs = Int(fields, "logprobs", -1);
  form.n = Int(fields, "n", 1);
  if (const json::value* id = fields.if_contains("request_id")) form.id = String(*id);
  const json::value* stop = fields.if_contains("stop");
  if (stop != nullptr && stop->is_string()) form.stops.push_back(String(*stop));
  if (stop != nullptr && stop->is_array())
    for (const json::value& item : stop->get_array()) form.stops.push_back(String(item));
  // The matcher leaves empty strings out; its index must fit ours.
  std::erase(form.stops, "");
}

}  // namespace

Result<std::vector<Request>> MakeRequests(const json::object& fields, const Backend& backend,
                                          ReplyForm& form) {
  if (std::optional<Error> error = CheckTogether(fields, "prompt")) return *error;
  FillForm(fields, form);
  const int context = backend.engine->max_model_len();
  Request base;
  base.sampling = Sampling(fields, backend);
  base.sampling.num_logprobs = form.num_logprobs;
  if (form.echo) base.sampling.num_prompt_logprobs = form.num_logprobs;
  base.num_choices = form.n;
  std::vector<Request> requests;
  for (std::vector<int32_t>& ids : Prompts(fields, backend)) {
    const int keep = Int(fields, "truncate_prompt_tokens", -1);
    if (keep > 0 && ids.size() > static_cast<size_t>(keep))
      ids.erase(ids.begin(), ids.end() - keep);
    if (ids.empty()) return Error{"The prompt is empty.", "prompt", "invalid_value"};
    if (ids.size() >= static_cast<size_t>(context))
      return Error{
          fmt::format("The prompt has {} tokens; the context holds {}.", ids.size(), context),
          "prompt", "context_length_exceeded"};
    Request request = base;
    const double room = context - static_cast<double>(ids.size());
    request.max_tokens =
        static_cast<int>(std::min(Number(fields, "max_completion_tokens", 16), room));
    request.sampling.min_tokens = std::min(request.sampling.min_tokens, request.max_tokens);
    request.prompt = std::move(ids);
    requests.push_back(std::move(request));
  }
  if (requests.size() * static_cast<size_t>(form.n) > 1024)
    return Error{"A request may ask for at most 1024 choices.", "prompt", "invalid_value"};
  return requests;
}

namespace {

// Tool-call arguments arrive as JSON text and are rendered as objects.
std::optional<Error> ParseArguments(json::value& call, const std::string& path) {
  json::object* function = nullptr;
  if (json::object* object = call.if_object())
    if (json::value* inner = object->if_contains("function")) function = inner->if_object();
  if (function == nullptr) return Error{"A tool call must hold a function.", path, "invalid_value"};
  json::value* arguments = function->if_contains("arguments");
  if (arguments == nullptr || !arguments->is_string()) return {};
  Result<json::value> parsed = ParseJson(String(*arguments), "arguments");
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
        name != "tool")
      return Error{"The role must be system, developer, user, assistant or tool.", path + ".role",
                   "invalid_value"};
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

Result<RenderOptions> ReadRenderOptions(const json::object& fields) {
  RenderOptions options;
  options.add_generation_prompt = Bool(fields, "add_generation_prompt", true);
  if (const json::value* effort = fields.if_contains("reasoning_effort")) {
    const std::string name = String(*effort);
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

}  // namespace

Result<Request> MakeChatRequest(const json::object& fields, const Backend& backend, ReplyForm& form,
                                ChatForm& chat) {
  if (std::optional<Error> error = CheckTogether(fields, "messages")) return *error;
  if (const json::value* choice = fields.if_contains("tool_choice");
      choice != nullptr && *choice != "auto" && *choice != "none")
    return Error{"'tool_choice' other than auto and none is not supported yet.", "tool_choice",
                 "unsupported_value"};
  json::object plain = fields;
  plain.erase("logprobs");  // a flag here, a count in completions
  FillForm(plain, form);
  if (Bool(fields, "logprobs", false))
    form.num_logprobs = Int(fields, "top_logprobs", 0);
  else if (fields.contains("top_logprobs") && Int(fields, "top_logprobs", 0) > 0)
    return Error{"'top_logprobs' needs 'logprobs': true.", "top_logprobs", "invalid_value"};
  Result<json::array> messages = CheckedMessages(fields.at("messages").get_array());
  if (!messages.ok()) return messages.error();
  const Result<RenderOptions> options = ReadRenderOptions(fields);
  if (!options.ok()) return options.error();
  // "none" promises that nothing is called: the model is not told of the tools and cannot begin a
  // call.
  const bool may_call = !fields.contains("tool_choice") || fields.at("tool_choice") != "none";
  const json::value* tools = fields.if_contains("tools");
  const json::array* tool_list =
      !may_call || tools == nullptr || tools->get_array().empty() ? nullptr : &tools->get_array();
  auto pieces = RenderChat(backend.chat_template, messages.value(), tool_list, options.value());
  if (!pieces.ok()) {
    Error error = pieces.error();
    if (error.code.empty()) error.code = "invalid_value";
    return error;
  }
  chat.start_in_thought = EndsInThought(pieces.value());
  chat.include_reasoning = Bool(fields, "include_reasoning", true);
  chat.parallel_calls = Bool(fields, "parallel_tool_calls", true);
  chat.tools = DeclaredTools::Of(tool_list);
  Request request;
  request.prompt = EncodePrompt(*backend.tokenizer, pieces.value());
  const int context = backend.engine->max_model_len();
  if (request.prompt.size() >= static_cast<size_t>(context))
    return Error{fmt::format("The prompt has {} tokens; the context holds {}.",
                             request.prompt.size(), context),
                 "messages", "context_length_exceeded"};
  request.sampling = Sampling(fields, backend);
  if (const auto call_open = ReplyTokens::Of(*backend.tokenizer).call_open; call_open && !may_call)
    request.sampling.bad_words.push_back({*call_open});
  request.sampling.num_logprobs = form.num_logprobs;
  request.num_choices = form.n;
  const double room = context - static_cast<double>(request.prompt.size());
  request.max_tokens =
      static_cast<int>(std::min(Number(fields, "max_completion_tokens", room), room));
  request.sampling.min_tokens = std::min(request.sampling.min_tokens, request.max_tokens);
  return request;
}

}  // namespace lapidary
