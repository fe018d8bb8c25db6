#include "server/openai/schema.h"

#include <charconv>
#include <cmath>
#include <optional>

#include "engine/request.h"

namespace lapidary {
namespace {

using enum FieldType;
constexpr double kInt32 = 2147483647.0;
constexpr size_t kStopBytes = 1024;
constexpr size_t kMaxPrompts = 1024;

// Order of the filters: suppress, bias, penalties, mask, temperature, top-k, top-p, min-p.
const Field kFields[] = {
    {"text", kPrompt, kNative},
    {"input_ids", kPrompt, kNative},
    {"sampling_params", kObject, kNative},
    {"max_new_tokens", kInt, kSamplingParams, 0, kInt32},
    {"return_logprob", kBool, kNative},
    {"logprob_start_len", kInt, kNative, -1, kContext},
    {"top_logprobs_num", kInt, kNative, 0, kMaxLogprobs},
    {"return_text_in_logprobs", kBool, kNative},
    {"image_data", kUnbuilt, kNative},
    {"audio_data", kUnbuilt, kNative},
    {"lora_path", kUnbuilt, kNative},
    {"model", kString, kGenerating | kTokenize | kDetokenize, 0, 256},
    {"messages", kArray, kChat | kTokenize, 1, 4096},
    {"prompt", kPrompt, kCompletions | kTokenize},
    {"tokens", kIds, kDetokenize, 0, 1 << 20},
    {"max_completion_tokens", kInt, kGenerating, 0, kInt32, "max_tokens"},
    {"min_tokens", kInt, kSampling, 0, kContext, "min_new_tokens"},
    {"temperature", kNumber, kSampling, 0, 100},
    {"top_p", kNumber, kSampling, 0, 1, {}, true},
    {"min_p", kNumber, kSampling, 0, 1},
    {"top_k", kInt, kSampling, -1, kVocab},
    {"presence_penalty", kNumber, kSampling, -2, 2},
    {"frequency_penalty", kNumber, kSampling, -2, 2},
    {"repetition_penalty", kNumber, kSampling, 0, 10, {}, true},
    {"seed", kInt, kSampling, -9223372036854775808.0, 9223372036854775807.0, "sampling_seed"},
    {"n", kInt, kSampling, 1, kMaxChoices},
    {"best_of", kInt, kGenerating, 1, kMaxChoices},
    {"stop", kStops, kSampling, 0, 16},
    {"stop_token_ids", kIds, kSampling, 0, kMaxStopIds},
    {"include_stop_str_in_output", kBool, kSampling, 0, 0, "no_stop_trim"},
    {"ignore_eos", kBool, kSampling},
    {"logit_bias", kBias, kSampling, 0, kMaxLogitBias},
    {"allowed_token_ids", kIds, kGenerating, 1, 262144},
    {"bad_words", kStrings, kGenerating, 0, kMaxBadWords},
    {"logprobs", kBool, kChat},
    {"logprobs", kInt, kCompletions, 0, kMaxLogprobs},
    {"top_logprobs", kInt, kChat, 0, kMaxLogprobs},
    {"prompt_logprobs", kInt, kGenerating, 0, kMaxLogprobs},
    {"echo", kBool, kCompletions},
    {"echo", kUnbuilt, kChat, 0, 0, {}, false, true},
    {"logprob_token_ids", kIds, kGenerating | kNative, 0, 1024, "token_ids_logprob"},
    {"truncate_prompt_tokens", kInt, kGenerating, -1, kContext},
    {"skip_special_tokens", kBool, kSampling | kDetokenize},
    {"spaces_between_special_tokens", kBool, kSampling},  // Gemma's decoder adds none anyway
    {"length_penalty", kUnbuilt, kGenerating, 0, 0, {}, false, true},
    {"use_beam_search", kUnbuilt, kGenerating, 0, 0, {}, false, true},
    {"suffix", kUnbuilt, kGenerating},
    {"stream", kBool, kGenerating | kNative},
    {"stream_options", kObject, kGenerating},
    {"request_id", kString, kGenerating | kNative, 1, 128, "rid"},
    {"priority", kInt, kGenerating | kNative, -kInt32 - 1, kInt32},
    {"cache_salt", kString, kGenerating | kNative, 0, 256},
    {"speculative_num_steps", kInt, kGenerating | kNative, 0, kMaxDrafts},
    {"timings", kBool, kGenerating | kNative},
    {"user", kAny, kGenerating},
    {"metadata", kAny, kGenerating},
    {"store", kAny, kGenerating},
    {"service_tier", kAny, kGenerating},
    {"return_routed_experts", kAny, kGenerating},
    {"chat_template_kwargs", kObject, kChat | kTokenize},
    {"chat_template", kString, kChat | kTokenize, 1, 1 << 20},
    {"reasoning_effort", kString, kChat, 1, 16},
    {"include_reasoning", kBool, kChat},
    {"add_generation_prompt", kBool, kChat | kTokenize},
    {"continue_final_message", kUnbuilt, kChat | kTokenize, 0, 0, {}, false, true},
    {"add_special_tokens", kBool, kCompletions | kTokenize},
    {"add_special_tokens", kUnbuilt, kChat, 0, 0, {}, false, true},
    {"return_token_strs", kBool, kTokenize},
    {"documents", kUnbuilt, kChat},
    {"tools", kArray, kChat | kTokenize, 0, 128},
    {"tool_choice", kAny, kChat},
    {"parallel_tool_calls", kBool, kChat},
    {"response_format", kAny, kGenerating},
    {"structured_outputs", kUnbuilt, kGenerating},
    {"guided_json", kUnbuilt, kGenerating},
    {"guided_regex", kUnbuilt, kGenerating},
    {"guided_choice", kUnbuilt, kGenerating},
    {"guided_grammar", kUnbuilt, kGenerating},
    {"json_schema", kUnbuilt, kSampling},
    {"regex", kUnbuilt, kSampling},
    {"ebnf", kUnbuilt, kSampling},
    {"grammar", kUnbuilt, kGenerating},
    {"structural_tag", kUnbuilt, kSampling},
    {"mm_processor_kwargs", kUnbuilt, kChat},
    {"thinking_token_budget", kUnbuilt, kChat, 0, 0, "reasoning_budget"},
    {"return_token_ids", kBool, kGenerating},
    {"return_tokens_as_token_ids", kBool, kGenerating},
    {"stream_interval", kUnbuilt, kGenerating, 0, 0, {}, false, true},
    {"timings_per_token", kUnbuilt, kGenerating, 0, 0, {}, false, true},
    {"return_progress", kUnbuilt, kGenerating, 0, 0, {}, false, true},
    {"return_prompt_text", kUnbuilt, kGenerating | kNative, 0, 0, {}, false, true},
    {"logprobs_mode", kUnbuilt, kGenerating},
    {"kv_transfer_params", kUnbuilt, kGenerating},
    {"repetition_detection", kUnbuilt, kGenerating},
    {"dry_multiplier", kUnbuilt, kSampling, 0, 0, {}, false, true},
    {"xtc_probability", kUnbuilt, kSampling, 0, 0, {}, false, true},
    {"mirostat", kUnbuilt, kSampling, 0, 0, {}, false, true},
    {"top_n_sigma", kUnbuilt, kSampling, 0, 0, {}, false, true},
    {"typical_p", kUnbuilt, kSampling, 0, 0, {}, false, true},
    {"samplers", kUnbuilt, kSampling, 0, 0, "sampler_order", false, true},
};

class Checker {
 public:
  explicit Checker(const FieldLimits& limits) : limits_(limits) {}

  std::optional<Error> Check(const Field& field, const json::value& value) const {
    switch (field.type) {
      case kAny:
        return {};
      case kUnbuilt:
        if (field.harmless_default && Harmless(value)) return {};
        return Error{fmt::format("'{}' is not supported yet.", field.name), std::string(field.name),
                     "unsupported_value"};
      case kBool:
        return Must(value.is_bool(), field, "true or false");
      case kInt:
      case kNumber:
        return CheckNumber(field, value);
      case kString:
        return Must(
            value.is_string() && InRange(static_cast<double>(value.get_string().size()), field),
            field, "a string of allowed length");
      case kStops:
      case kStrings:
        return CheckStrings(field, value);
      case kIds:
        return Must(value.is_array() &&
                        InRange(static_cast<double>(value.get_array().size()), field) &&
                        AllIds(value),
                    field, "a list of token ids of the vocabulary, of allowed length");
      case kBias:
        return CheckBias(field, value);
      case kObject:
        return Must(value.is_object(), field, "an object");
      case kArray:
        return Must(
            value.is_array() && InRange(static_cast<double>(value.get_array().size()), field),
            field, "a list of allowed length");
      case kPrompt:
        return CheckPrompt(field, value);
    }
    return {};
  }

 private:
  static std::optional<Error> Must(bool good, const Field& field, std::string_view wanted) {
    if (good) return {};
    return Error{fmt::format("'{}' must be {}.", field.name, wanted), std::string(field.name),
                 "invalid_value"};
  }

  static bool Harmless(const json::value& value) {
    if (value.is_bool()) return !value.get_bool();
    if (value.is_number()) {
      const double number = value.to_number<double>();
      return number == 0 || number == 1;
    }
    return value.is_array() && value.get_array().empty();
  }

  double High(const Field& field) const {
    if (field.hi == kVocab) return limits_.vocab_size;
    if (field.hi == kContext) return limits_.max_model_len;
    return field.hi;
  }

  bool InRange(double number, const Field& field) const {
    return field.lo <= number && number <= High(field) && !(field.above_lo && number == field.lo);
  }

  std::optional<Error> CheckNumber(const Field& field, const json::value& value) const {
    const bool whole =
        value.is_int64() || (value.is_double() && std::abs(value.get_double()) < 1e15 &&
                             value.get_double() == std::floor(value.get_double()));
    const bool typed = field.type == kInt ? whole : value.is_number();
    const bool good = typed && InRange(value.to_number<double>(), field);
    if (good) return {};
    return Must(
        false, field,
        fmt::format("{} {} {} and at most {}", field.type == kInt ? "a whole number" : "a number",
                    field.above_lo ? "above" : "of at least", field.lo, High(field)));
  }

  bool IsId(const json::value& value) const {
    return value.is_int64() && 0 <= value.get_int64() && value.get_int64() < limits_.vocab_size;
  }
  bool AllIds(const json::value& list) const {
    for (const json::value& item : list.get_array())
      if (!IsId(item)) return false;
    return true;
  }

  std::optional<Error> CheckStrings(const Field& field, const json::value& value) const {
    const auto fits = [](const json::value& item) {
      return item.is_string() && item.get_string().size() <= kStopBytes;
    };
    if (field.type == kStops && value.is_string())
      return Must(fits(value), field, "at most 1024 bytes long");
    bool good = value.is_array() && InRange(static_cast<double>(value.get_array().size()), field);
    if (good)
      for (const json::value& item : value.get_array()) good = good && fits(item);
    return Must(good, field, fmt::format("at most {} strings of at most 1024 bytes", field.hi));
  }

  std::optional<Error> CheckBias(const Field& field, const json::value& value) const {
    bool good = value.is_object() && InRange(static_cast<double>(value.get_object().size()), field);
    if (good)
      for (const auto& [key, bias] : value.get_object()) {
        int32_t id = -1;
        const auto [end, code] = std::from_chars(key.data(), key.data() + key.size(), id);
        const double number = bias.is_number() ? bias.to_number<double>() : 1e9;
        good = good && code == std::errc() && end == key.data() + key.size() && 0 <= id &&
               id < limits_.vocab_size && -100 <= number && number <= 100;
      }
    return Must(good, field, "at most 1024 ids of the vocabulary with numbers of -100 to 100");
  }

  std::optional<Error> CheckPrompt(const Field& field, const json::value& value) const {
    bool good = value.is_string();
    if (value.is_array() && !value.get_array().empty()) {
      const json::array& list = value.get_array();
      const json::value& first = list[0];
      good = first.is_number() ? AllIds(value) : list.size() <= kMaxPrompts;
      if (!first.is_number())
        for (const json::value& item : list)
          good = good &&
                 (first.is_string() ? item.is_string()
                                    : item.is_array() && !item.get_array().empty() && AllIds(item));
    }
    return Must(good, field,
                "a string, a list of strings, token ids of the vocabulary or a list of such lists");
  }

  FieldLimits limits_;
};

const Field* FindField(std::string_view name, unsigned endpoint) {
  for (const Field& field : kFields)
    if ((field.endpoints & endpoint) != 0 &&
        (field.name == name || (!field.alias.empty() && field.alias == name)))
      return &field;
  return nullptr;
}

}  // namespace

std::span<const Field> FieldTable() { return kFields; }

Result<CheckedFields> CheckFields(const json::object& body, unsigned endpoint,
                                  const FieldLimits& limits) {
  CheckedFields checked;
  const Checker checker(limits);
  for (const auto& [key, value] : body) {
    const std::string_view name(key.data(), key.size());
    const Field* field = FindField(name, endpoint);
    if (field == nullptr) {
      checked.unknown.emplace_back(name.substr(0, 64));
      continue;
    }
    if (value.is_null()) continue;
    Field spelled = *field;  // errors name the field as the request does
    spelled.name = name;
    if (std::optional<Error> error = checker.Check(spelled, value)) return *error;
    if (field->type == kUnbuilt) continue;  // a harmless value asks for nothing
    if (field->name == name || !checked.values.contains(field->name))
      checked.values[field->name] = value;
  }
  return checked;
}

}  // namespace lapidary
