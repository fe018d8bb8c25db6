// MakeNativeRequests: checked fields of /generate to engine requests.
#include <algorithm>

#include "server/native/generate.h"
#include "server/openai/completion_request.h"
#include "server/openai/field_values.h"
#include "server/openai/schema.h"

namespace lapidary {
namespace {

constexpr int kDefaultNewTokens = 128;

Result<std::vector<std::vector<int32_t>>> ReadPrompts(const json::object& fields,
                                                      const Backend& backend,
                                                      GenerateForm& native) {
  const json::value* text = fields.if_contains("text");
  const json::value* ids = fields.if_contains("input_ids");
  if ((text == nullptr) == (ids == nullptr))
    return Error{"Give either 'text' or 'input_ids'.", "text", "invalid_value"};
  std::vector<std::vector<int32_t>> prompts;
  if (text != nullptr) {
    if (backend.tokenizer == nullptr) return NoTokenizer("text");
    if (text->is_string()) {
      prompts.push_back(EncodeText(*text, backend, true));
      return prompts;
    }
    native.is_list = true;
    for (const json::value& item : text->get_array()) {
      if (!item.is_string())
        return Error{"'text' must be a string or a list of strings.", "text", "invalid_value"};
      prompts.push_back(EncodeText(item, backend, true));
    }
    return prompts;
  }
  if (ids->is_array() && ids->get_array()[0].is_number()) {
    prompts.push_back(IdsOf(ids));
    return prompts;
  }
  native.is_list = true;
  if (ids->is_array())
    for (const json::value& item : ids->get_array())
      if (item.is_array()) prompts.push_back(IdsOf(&item));
  if (prompts.empty())
    return Error{"'input_ids' must be token ids or a list of such lists.", "input_ids",
                 "invalid_value"};
  return prompts;
}

Result<json::object> ReadSampling(const json::object& fields, const Backend& backend) {
  const json::value* given = fields.if_contains("sampling_params");
  if (given == nullptr) return json::object();
  const FieldLimits limits{backend.engine->vocab_size(), backend.engine->max_model_len()};
  Result<CheckedFields> checked = CheckFields(given->get_object(), kSamplingParams, limits);
  if (!checked.ok()) {
    Error error = checked.error();
    error.param = "sampling_params." + error.param;
    return error;
  }
  if (backend.tokenizer == nullptr)
    for (const char* name : {"stop", "bad_words"})
      if (checked.value().values.contains(name)) return NoTokenizer(name);
  return std::move(checked).value().values;
}

}  // namespace

Result<std::vector<Request>> MakeNativeRequests(const json::object& fields, const Backend& backend,
                                                ReplyForm& form, GenerateForm& native) {
  Result<std::vector<std::vector<int32_t>>> prompts = ReadPrompts(fields, backend, native);
  if (!prompts.ok()) return prompts.error();
  Result<json::object> sampling = ReadSampling(fields, backend);
  if (!sampling.ok()) return sampling.error();
  FillForm(sampling.value(), form);
  form.stream = BoolOf(fields, "stream", false);
  form.timings = BoolOf(fields, "timings", false);
  if (const json::value* id = fields.if_contains("request_id")) form.id = StringOf(*id);
  native.logprobs = BoolOf(fields, "return_logprob", false);
  native.logprob_start = IntOf(fields, "logprob_start_len", -1);
  native.text_in_logprobs = BoolOf(fields, "return_text_in_logprobs", false);

  Request base;
  base.sampling = SamplingOf(sampling.value(), backend);
  base.num_choices = form.n;
  if (native.logprobs) {
    base.sampling.num_logprobs = IntOf(fields, "top_logprobs_num", 0);
    if (native.logprob_start >= 0) base.sampling.num_prompt_logprobs = base.sampling.num_logprobs;
    base.sampling.logprob_ids = IdsOf(fields.if_contains("logprob_token_ids"));
  }
  const char* const input = fields.contains("text") ? "text" : "input_ids";
  std::vector<Request> requests;
  for (std::vector<int32_t>& ids : prompts.value()) {
    Request request = base;
    if (std::optional<Error> error = SetPrompt(
            request, std::move(ids), fields,
            NumberOf(sampling.value(), "max_new_tokens", kDefaultNewTokens), backend, input))
      return *error;
    FillScheduling(fields, backend, form, request);
    requests.push_back(std::move(request));
  }
  return requests;
}

}  // namespace lapidary
