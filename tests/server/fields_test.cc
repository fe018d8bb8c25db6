// Every field of the table with hostile values, on every endpoint: refused by its name, or accepted
// where the value is legal, never a 500.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <set>

#include "io/json.h"
#include "server/openai/schema.h"
#include "tests/server/api_server_fixture.h"

namespace lapidary {
namespace {

std::vector<std::string> HostileValues() {
  std::vector<std::string> values = {"NaN",
                                     "Infinity",
                                     "-Infinity",
                                     "1e999",
                                     "-1e999",
                                     "-1",
                                     "0",
                                     "0.5",
                                     "2147483648",
                                     "-2147483649",
                                     "9223372036854775808",
                                     "-9223372036854775809",
                                     "1e308",
                                     "-0.0000001",
                                     "\"\"",
                                     "null",
                                     "true",
                                     "{}",
                                     "[]",
                                     "[null]",
                                     "{\"a\":{}}",
                                     "[[[{}]]]",
                                     "\"\\u0000\\u0001\"",
                                     "\"\\ud800\"",
                                     "[-1]",
                                     "[1.5]",
                                     "[2147483647]",
                                     "{\"0\":1e999}",
                                     "{\"-1\":1}",
                                     "[\"\\u0000\"]"};
  values.push_back(std::string(65, '[') + std::string(65, ']'));
  std::string numbers = "[0";
  for (int i = 0; i < 20000; ++i) numbers += ",0";
  values.push_back(numbers + "]");
  values.push_back("\"" + std::string(64 << 10, 'x') + "\"");
  return values;
}

constexpr int kVocabSize = 1024, kContextSize = 4096;  // of the fixture

// Whether the table's row lets this value pass. Written from the meaning of the rows, not from the
// validator.
class Oracle {
 public:
  Oracle(const Field& field, bool is_required) : field_(field), is_required_(is_required) {}

  bool Allows(const json::value& value) const {
    using enum FieldType;
    if (value.is_null()) return !is_required_;
    switch (field_.type) {
      case kAny:
        return true;
      case kUnbuilt:
        return field_.harmless_default &&
               (value == false || IsNumber(value, 0) || IsNumber(value, 1) || IsEmptyList(value));
      case kBool:
        return value.is_bool();
      case kInt:
        // A double beyond 1e15 may not be the number that was written.
        return (value.is_int64() || (value.is_double() && std::abs(Number(value)) < 1e15 &&
                                     std::floor(Number(value)) == Number(value))) &&
               Within(Number(value));
      case kNumber:
        return value.is_number() && Within(Number(value));
      case kString:
        return value.is_string() && Within(static_cast<double>(value.get_string().size()));
      case kObject:
        return value.is_object();
      case kBias:
        return value.is_object() && value.get_object().empty();  // the full ones are all bad
      case kStops:
        if (value.is_string()) return value.get_string().size() <= 1024;
        [[fallthrough]];
      case kStrings:
        return AllOf(value, [](const json::value& item) {
          return item.is_string() && item.get_string().size() <= 1024;
        });
      case kIds:
        return AllOf(value, IsId);
      case kArray:
        return AllOf(value, [](const json::value&) { return true; });
      case kPrompt:
        return value.is_string() ||
               (value.is_array() && !value.get_array().empty() &&
                (AllOf(value, IsId, false) ||
                 AllOf(value, [](const json::value& item) { return item.is_string(); }, false)));
    }
    return false;
  }

 private:
  static double Number(const json::value& value) { return value.to_number<double>(); }
  static bool IsNumber(const json::value& value, double number) {
    return value.is_number() && Number(value) == number;
  }
  static bool IsEmptyList(const json::value& value) {
    return value.is_array() && value.get_array().empty();
  }
  static bool IsId(const json::value& value) {
    return value.is_int64() && value.get_int64() >= 0 && value.get_int64() < kVocabSize;
  }
  bool Within(double number) const {
    const double high = field_.hi == kVocab     ? kVocabSize
                        : field_.hi == kContext ? kContextSize
                                                : field_.hi;
    return field_.above_lo ? field_.lo < number && number <= high
                           : field_.lo <= number && number <= high;
  }
  template <typename Good>
  bool AllOf(const json::value& value, Good good, bool counted = true) const {
    if (!value.is_array()) return false;
    if (counted && !Within(static_cast<double>(value.get_array().size()))) return false;
    for (const json::value& item : value.get_array())
      if (!good(item)) return false;
    return true;
  }

  const Field& field_;
  bool is_required_;
};

struct Endpoint {
  const char* path;
  unsigned bit;
  const char* required;          // a field with a value
  const char* inside = nullptr;  // the object that holds the others
};
constexpr Endpoint kEndpoints[] = {
    {"/v1/completions", kCompletions, R"("prompt":"a")"},
    {"/v1/chat/completions", kChat, R"("messages":[{"role":"user","content":"a"}])"},
    {"/generate", kNative, R"("text":"a")"},
    {"/generate", kSamplingParams, R"("text":"a")", "sampling_params"},
    {"/tokenize", kTokenize, R"("prompt":"a")"},
    {"/detokenize", kDetokenize, R"("tokens":[5])"}};

// Rules that the table does not hold: about another field, or the inside of a value.
const std::set<std::string_view> kMoreRules = {"prompt",
                                               "messages",
                                               "text",
                                               "input_ids",
                                               "min_tokens",
                                               "best_of",
                                               "request_id",
                                               "response_format",
                                               "tool_choice",
                                               "stream_options",
                                               "reasoning_effort",
                                               "truncate_prompt_tokens",
                                               "chat_template",
                                               "chat_template_kwargs",
                                               "sampling_params",
                                               "tools",
                                               "max_new_tokens",
                                               "top_logprobs",
                                               "model"};

class FieldsTest : public ApiServerTest {
 protected:
  void Ask(const Endpoint& endpoint, const Field& field, std::string_view name,
           const std::string& value) {
    const std::string required = endpoint.required;
    const bool is_required = required.starts_with("\"" + std::string(field.name) + "\"");
    const std::string given = "\"" + std::string(name) + "\":" + value;
    const std::string body =
        "{" + (is_required ? "" : required + ",") +
        (endpoint.inside == nullptr ? given
                                    : "\"" + std::string(endpoint.inside) + "\":{" + given + "}") +
        "}";
    const std::string reply = Post(endpoint.path, body);
    const int status = StatusOf(reply);
    SCOPED_TRACE(std::string(endpoint.path) + " " + std::string(name) + " " + value.substr(0, 40) +
                 " " + reply.substr(0, 600));
    const Oracle oracle(field, is_required);
    if (status == 200) {
      const auto parsed = ParseJson(value, "value");
      ASSERT_TRUE(parsed.ok());
      EXPECT_TRUE(oracle.Allows(parsed.value()));
      return;
    }
    ASSERT_EQ(status, field.name == "model" && value.starts_with('"') && value.size() < 256 &&
                              value != "\"\\ud800\""
                          ? 404
                          : 400);
    const std::string text = reply.substr(reply.find("\r\n\r\n") + 4);
    EXPECT_LE(text.size(), 512u);
    const json::object error = json::parse(text).at("error").as_object();
    const auto parsed = ParseJson(value, "value");
    if (!parsed.ok()) {
      EXPECT_EQ(error.at("code").as_string(), "invalid_json");
      return;
    }
    ASSERT_TRUE(error.at("param").is_string());
    const std::string param(error.at("param").as_string());
    if (!oracle.Allows(parsed.value())) {
      EXPECT_EQ(param, (endpoint.inside == nullptr ? "" : std::string(endpoint.inside) + ".") +
                           std::string(name));
    } else {
      // At odds with another field, or bad inside; that too has a name.
      EXPECT_TRUE(kMoreRules.contains(field.name)) << "a legal value was refused";
      EXPECT_FALSE(param.empty());
    }
  }
};

TEST_F(FieldsTest, HostileValuesAreRefusedByName) {
  ASSERT_EQ(tokenizer_->vocab_size(), kVocabSize);
  engine_->script = {7};
  const std::vector<std::string> values = HostileValues();
  int num_requests = 0;
  const auto start = std::chrono::steady_clock::now();
  for (const Endpoint& endpoint : kEndpoints)
    for (const Field& field : FieldTable()) {
      if ((field.endpoints & endpoint.bit) == 0) continue;
      for (const std::string_view name : {field.name, field.alias})
        for (const std::string& value : values) {
          // The scripted engine answers to this one only after a cancel.
          if (name.empty() || (name == "ignore_eos" && value == "true")) continue;
          Ask(endpoint, field, name, value);
          ++num_requests;
        }
    }
  const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
  EXPECT_GT(num_requests, 7000);
  EXPECT_LT(spent.count() / num_requests, 20);
  EXPECT_EQ(StatusOf(Get("/health")), 200);
}

// One field of each type: the largest text that the body limit lets in.
TEST_F(FieldsTest, TenMebibytesAreRefusedByName) {
  engine_->script = {7};
  const std::string value = "\"" + std::string(10 << 20, 'x') + "\"";
  std::set<FieldType> seen;
  for (const Field& field : FieldTable())
    if ((field.endpoints & kCompletions) != 0 && field.type != FieldType::kPrompt &&
        seen.insert(field.type).second)
      Ask(kEndpoints[0], field, field.name, value);
}

}  // namespace
}  // namespace lapidary
