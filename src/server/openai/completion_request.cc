#include "server/openai/completion_request.h"

#include <algorithm>
#include <charconv>
#include <random>

#include "base/sha256.h"
#include "server/openai/field_values.h"

namespace lapidary {
namespace {

uint64_t Seed(const json::object& fields, const Backend& backend) {
  if (const json::value* seed = fields.if_contains("seed"))
    return static_cast<uint64_t>(
        seed->is_int64() ? seed->get_int64() : static_cast<int64_t>(seed->to_number<double>()));
  if (backend.seeds) return backend.seeds->Next();
  static thread_local std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

std::vector<std::vector<int32_t>> Prompts(const json::object& fields, const Backend& backend) {
  const json::value& prompt = fields.at("prompt");
  const bool add_bos = BoolOf(fields, "add_special_tokens", true);
  if (prompt.is_string()) return {EncodeText(prompt, backend, add_bos)};
  const json::array& list = prompt.get_array();
  if (list[0].is_int64()) return {IdsOf(&prompt)};
  std::vector<std::vector<int32_t>> prompts;
  for (const json::value& item : list)
    prompts.push_back(item.is_string() ? EncodeText(item, backend, add_bos) : IdsOf(&item));
  return prompts;
}

// --skip-tokenizer-init: ids in, ids out.
std::optional<Error> CheckWithoutText(const json::object& fields) {
  for (const char* param : {"stop", "bad_words", "echo"})
    if (fields.contains(param) && fields.at(param) != false) return NoTokenizer(param);
  const json::value& prompt = fields.at("prompt");
  const auto is_text = [](const json::value& value) { return value.is_string(); };
  if (is_text(prompt) || std::any_of(prompt.get_array().begin(), prompt.get_array().end(), is_text))
    return Error{"'prompt' must be token ids; this server was started with --skip-tokenizer-init.",
                 "prompt", "unsupported_value"};
  return {};
}

}  // namespace

SamplingParams SamplingOf(const json::object& fields, const Backend& backend) {
  SamplingParams params;
  params.temperature =
      static_cast<float>(NumberOf(fields, "temperature", backend.defaults.temperature));
  params.top_p = static_cast<float>(NumberOf(fields, "top_p", backend.defaults.top_p));
  params.min_p = static_cast<float>(NumberOf(fields, "min_p", 0));
  params.top_k = std::max(0, IntOf(fields, "top_k", backend.defaults.top_k));
  params.presence_penalty = static_cast<float>(NumberOf(fields, "presence_penalty", 0));
  params.frequency_penalty = static_cast<float>(NumberOf(fields, "frequency_penalty", 0));
  params.repetition_penalty = static_cast<float>(NumberOf(fields, "repetition_penalty", 1));
  params.seed = Seed(fields, backend);
  params.min_tokens = IntOf(fields, "min_tokens", 0);
  params.ignore_eos = BoolOf(fields, "ignore_eos", false);
  params.stop_ids = IdsOf(fields.if_contains("stop_token_ids"));
  params.allowed_ids = IdsOf(fields.if_contains("allowed_token_ids"));
  params.logprob_ids = IdsOf(fields.if_contains("logprob_token_ids"));
  params.num_prompt_logprobs = IntOf(fields, "prompt_logprobs", -1);
  if (const json::value* bias = fields.if_contains("logit_bias"))
    for (const auto& [key, value] : bias->get_object()) {
      int32_t id = 0;
      std::from_chars(key.data(), key.data() + key.size(), id);
      params.logit_bias.emplace_back(id, value.to_number<float>());
    }
  if (const json::value* words = fields.if_contains("bad_words"))
    for (const json::value& word : words->get_array()) {
      std::vector<int32_t> ids =
          backend.tokenizer->Encode(StringOf(word), Tokenizer::Specials::kAsText);
      if (!ids.empty()) params.bad_words.push_back(std::move(ids));
    }
  return params;
}

std::vector<int32_t> EncodeText(const json::value& text, const Backend& backend, bool add_bos) {
  std::vector<int32_t> ids = backend.tokenizer->Encode(StringOf(text));
  const std::optional<int32_t> bos = backend.tokenizer->Find("<bos>");
  if (add_bos && bos && (ids.empty() || ids[0] != *bos)) ids.insert(ids.begin(), *bos);
  return ids;
}

std::optional<Error> CheckTogether(const json::object& fields, const char* input) {
  const auto invalid = [](const char* param, const char* message) {
    return Error{message, param, "invalid_value"};
  };
  if (!fields.contains(input))
    return Error{fmt::format("'{}' is required.", input), input, "invalid_value"};
  const int n = IntOf(fields, "n", 1), best_of = IntOf(fields, "best_of", n);
  if (best_of != 1 && best_of != n) return invalid("best_of", "'best_of' must be null, 1 or n.");
  if (fields.contains("truncate_prompt_tokens") && fields.at("truncate_prompt_tokens") == 0)
    return invalid("truncate_prompt_tokens", "'truncate_prompt_tokens' must be -1 or at least 1.");
  const json::value* max_tokens = fields.if_contains("max_completion_tokens");
  if (max_tokens != nullptr && IntOf(fields, "min_tokens", 0) > max_tokens->to_number<double>())
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

std::optional<Error> SetPrompt(Request& request, std::vector<int32_t> ids,
                               const json::object& fields, double max_tokens,
                               const Backend& backend, const char* param) {
  const int context = backend.engine->max_model_len();
  if (fields.contains("truncate_prompt_tokens")) {
    const int given = IntOf(fields, "truncate_prompt_tokens", 0);
    const auto keep = static_cast<size_t>(given < 0 ? context - 1 : given);
    if (ids.size() > keep) ids.erase(ids.begin(), ids.end() - static_cast<std::ptrdiff_t>(keep));
  }
  if (ids.empty()) return Error{"The prompt is empty.", param, "invalid_value"};
  if (ids.size() >= static_cast<size_t>(context))
    return Error{
        fmt::format("The prompt has {} tokens; the context holds {}.", ids.size(), context), param,
        "context_length_exceeded"};
  const double room = context - static_cast<double>(ids.size());
  request.max_tokens = static_cast<int>(std::min(max_tokens, room));
  request.sampling.min_tokens = std::min(request.sampling.min_tokens, request.max_tokens);
  request.prompt = std::move(ids);
  return {};
}

void FillScheduling(const json::object& fields, const Backend& backend, const ReplyForm& form,
                    Request& request) {
  const int priority = IntOf(fields, "priority", 0);
  if (backend.priority_order == PriorityOrder::kLowFirst) request.priority = priority;
  // ~ turns the order round without overflow.
  if (backend.priority_order == PriorityOrder::kHighFirst) request.priority = ~priority;
  if (fields.contains("speculative_num_steps"))
    request.max_drafts = IntOf(fields, "speculative_num_steps", 0);
  request.salt = form.caller_salt;
  if (const json::value* salt = fields.if_contains("cache_salt"))
    request.salt = HmacSha256(
        {reinterpret_cast<const char*>(form.caller_salt.data()), form.caller_salt.size()},
        salt->get_string());
  const std::optional<int32_t> turn =
      backend.tokenizer == nullptr ? std::nullopt : backend.tokenizer->Find("<|turn>");
  for (size_t i = 0; turn && i < request.prompt.size(); ++i)
    if (request.prompt[i] == *turn) request.turn_borders.push_back(static_cast<int32_t>(i));
}

void FillForm(const json::object& fields, ReplyForm& form) {
  form.timings = BoolOf(fields, "timings", false);
  form.stream = BoolOf(fields, "stream", false);
  if (const json::value* options = fields.if_contains("stream_options")) {
    const auto is_true = [&](const char* name) {
      const json::value* value = options->get_object().if_contains(name);
      return value != nullptr && value->is_bool() && value->get_bool();
    };
    form.include_usage = is_true("include_usage");
    form.continuous_usage = is_true("continuous_usage_stats");
  }
  form.echo = BoolOf(fields, "echo", false);
  form.token_ids = BoolOf(fields, "return_token_ids", false);
  form.ids_as_tokens = BoolOf(fields, "return_tokens_as_token_ids", false);
  form.prompt_logprobs = fields.contains("prompt_logprobs");
  form.skip_special = BoolOf(fields, "skip_special_tokens", true);
  form.keep_stop = BoolOf(fields, "include_stop_str_in_output", false);
  form.num_logprobs = IntOf(fields, "logprobs", -1);
  // Ids asked for by name need the entries that hold them.
  if (fields.contains("logprob_token_ids")) form.num_logprobs = std::max(form.num_logprobs, 0);
  form.n = IntOf(fields, "n", 1);
  if (const json::value* id = fields.if_contains("request_id")) form.id = StringOf(*id);
  const json::value* stop = fields.if_contains("stop");
  if (stop != nullptr && stop->is_string()) form.stops.push_back(StringOf(*stop));
  if (stop != nullptr && stop->is_array())
    for (const json::value& item : stop->get_array()) form.stops.push_back(StringOf(item));
  // The matcher leaves empty strings out; its index must fit ours.
  std::erase(form.stops, "");
}

Error NoTokenizer(const char* param) {
  return {fmt::format("'{}' needs a tokenizer; this server was started with --skip-tokenizer-init.",
                      param),
          param, "unsupported_value"};
}

Result<std::vector<Request>> MakeRequests(const json::object& fields, const Backend& backend,
                                          ReplyForm& form) {
  if (std::optional<Error> error = CheckTogether(fields, "prompt")) return *error;
  if (backend.tokenizer == nullptr)
    if (std::optional<Error> error = CheckWithoutText(fields)) return *error;
  FillForm(fields, form);
  form.token_ids |= backend.tokenizer == nullptr;
  Request base;
  base.sampling = SamplingOf(fields, backend);
  base.sampling.num_logprobs = form.num_logprobs;
  if (form.echo)
    base.sampling.num_prompt_logprobs =
        std::max(base.sampling.num_prompt_logprobs, form.num_logprobs);
  base.num_choices = form.n;
  std::vector<Request> requests;
  for (std::vector<int32_t>& ids : Prompts(fields, backend)) {
    Request request = base;
    if (std::optional<Error> error =
            SetPrompt(request, std::move(ids), fields,
                      NumberOf(fields, "max_completion_tokens", 16), backend, "prompt"))
      return *error;
    FillScheduling(fields, backend, form, request);
    requests.push_back(std::move(request));
  }
  if (requests.size() * static_cast<size_t>(form.n) > 1024)
    return Error{"A request may ask for at most 1024 choices.", "prompt", "invalid_value"};
  return requests;
}

}  // namespace lapidary
