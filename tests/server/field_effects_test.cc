// What each field of a request does: on the engine's request, or on the reply.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/value_from.hpp>
#include <functional>

#include "io/mapped_file.h"
#include "tests/server/api_server_fixture.h"

namespace lapidary {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class FieldEffectsTest : public ApiServerTest {
 protected:
  std::string Ask(const std::string& path, const std::string& fields) {
    const std::string required = path == "/v1/completions"
                                     ? R"("prompt":"a b c")"
                                     : R"("messages":[{"role":"user","content":"a"}])";
    std::string reply = Post(path, "{" + required + (fields.empty() ? "" : ",") + fields + "}");
    EXPECT_EQ(StatusOf(reply), 200) << fields << reply;
    return reply;
  }
  json::value Choice(const std::string& path, const std::string& fields) {
    return BodyOf(Ask(path, fields)).at("choices").at(0);
  }
  // The chunks of a stream, without [DONE].
  std::vector<json::value> Chunks(const std::string& path, const std::string& fields) {
    const std::string stream = Ask(path, fields + R"(,"stream":true)");
    std::vector<json::value> chunks;
    for (size_t at = stream.find("data: {"); at != std::string::npos;
         at = stream.find("data: {", at + 1))
      chunks.push_back(json::parse(stream.substr(at + 6, stream.find('\n', at) - at - 6)));
    return chunks;
  }
};

constexpr const char *kText = "/v1/completions", *kMessages = "/v1/chat/completions";

TEST_F(FieldEffectsTest, SamplingReachesTheEngine) {
  const std::vector<int32_t> word = tokenizer_->Encode("red");
  const struct {
    const char* fields;
    std::function<bool(const Request&)> holds;
  } kCases[] = {
      {"",
       [](const Request& r) {
         return r.sampling.temperature == 1 && r.sampling.top_k == 64 &&
                r.sampling.top_p == 0.95f && r.sampling.min_p == 0 && !r.sampling.ignore_eos &&
                r.num_choices == 1 && r.sampling.num_prompt_logprobs == -1;
       }},
      {R"("temperature":0.25)", [](const Request& r) { return r.sampling.temperature == 0.25f; }},
      {R"("top_p":0.5)", [](const Request& r) { return r.sampling.top_p == 0.5f; }},
      {R"("min_p":0.125)", [](const Request& r) { return r.sampling.min_p == 0.125f; }},
      {R"("top_k":7)", [](const Request& r) { return r.sampling.top_k == 7; }},
      {R"("top_k":-1)", [](const Request& r) { return r.sampling.top_k == 0; }},
      {R"("presence_penalty":-1.5)",
       [](const Request& r) { return r.sampling.presence_penalty == -1.5f; }},
      {R"("frequency_penalty":0.5)",
       [](const Request& r) { return r.sampling.frequency_penalty == 0.5f; }},
      {R"("repetition_penalty":1.25)",
       [](const Request& r) { return r.sampling.repetition_penalty == 1.25f; }},
      {R"("seed":-3)",
       [](const Request& r) { return r.sampling.seed == static_cast<uint64_t>(-3); }},
      {R"("sampling_seed":9)", [](const Request& r) { return r.sampling.seed == 9; }},
      {R"("max_tokens":9,"min_tokens":4)",
       [](const Request& r) { return r.max_tokens == 9 && r.sampling.min_tokens == 4; }},
      {R"("max_completion_tokens":5)", [](const Request& r) { return r.max_tokens == 5; }},
      {R"("max_completion_tokens":99999)",
       [](const Request& r) { return r.max_tokens == 4096 - static_cast<int>(r.prompt.size()); }},
      {R"("stop_token_ids":[5,6])",
       [](const Request& r) { return r.sampling.stop_ids == std::vector<int32_t>{5, 6}; }},
      {R"("logit_bias":{"12":-100})",
       [](const Request& r) {
         return r.sampling.logit_bias == std::vector<std::pair<int32_t, float>>{{12, -100.0f}};
       }},
      {R"("allowed_token_ids":[8,9])",
       [](const Request& r) { return r.sampling.allowed_ids == std::vector<int32_t>{8, 9}; }},
      {R"("bad_words":["red"])",
       [&](const Request& r) {
         return r.sampling.bad_words == std::vector<std::vector<int32_t>>{word};
       }},
      {R"("prompt_logprobs":3)",
       [](const Request& r) { return r.sampling.num_prompt_logprobs == 3; }},
      {R"("logprob_token_ids":[3])",
       [](const Request& r) { return r.sampling.logprob_ids == std::vector<int32_t>{3}; }},
      {R"("n":2)", [](const Request& r) { return r.num_choices == 2; }},
      {R"("speculative_num_steps":5)", [](const Request& r) { return r.max_drafts == 5; }},
  };
  engine_->script = {7};
  for (const char* path : {kText, kMessages})
    for (const auto& [fields, holds] : kCases) {
      // The script answers one choice.
      engine_->script =
          std::string_view(fields) == R"("n":2)" ? std::vector<int32_t>() : std::vector<int32_t>{7};
      Ask(path, fields);
      EXPECT_TRUE(holds(engine_->last_request())) << path << " " << fields;
    }
  Ask(kText, R"("logprobs":2)");
  EXPECT_EQ(engine_->last_request().sampling.num_logprobs, 2);
  Ask(kMessages, R"("logprobs":true,"top_logprobs":4)");
  EXPECT_EQ(engine_->last_request().sampling.num_logprobs, 4);
}

TEST_F(FieldEffectsTest, TruncationKeepsTheLastTokens) {
  for (const char* path : {kText, kMessages}) {
    Ask(path, "");
    const std::vector<int32_t> whole = engine_->last_request().prompt;
    ASSERT_GT(whole.size(), 2u);
    Ask(path, R"("truncate_prompt_tokens":2)");
    EXPECT_THAT(engine_->last_request().prompt, ElementsAre(whole[whole.size() - 2], whole.back()));
    Ask(path, R"("truncate_prompt_tokens":-1)");
    EXPECT_EQ(engine_->last_request().prompt, whole);
  }
  // -1: as many as leave room for a token.
  std::string long_prompt = "{\"truncate_prompt_tokens\":-1,\"prompt\":[5";
  for (int i = 0; i < 5000; ++i) long_prompt += ",6";
  EXPECT_EQ(StatusOf(Post(kText, long_prompt + "]}")), 200);
  EXPECT_EQ(engine_->last_request().prompt.size(), 4095u);
}

TEST_F(FieldEffectsTest, StopStringsAreKeptIfAsked) {
  for (const char* path : {kText, kMessages}) {
    engine_->script = tokenizer_->Encode("one two three");
    const auto text = [&](const std::string& fields) {
      const json::value choice = Choice(path, R"("stop":["two"])" + fields);
      EXPECT_EQ(choice.at("finish_reason").as_string(), "stop");
      EXPECT_EQ(choice.at("stop_reason").as_string(), "two");
      EXPECT_EQ(choice.at("matched_stop").as_string(), "two");
      return path == kText ? std::string(choice.at("text").as_string())
                           : std::string(choice.at("message").at("content").as_string());
    };
    EXPECT_EQ(text(""), "one ");
    EXPECT_EQ(text(R"(,"include_stop_str_in_output":true)"), "one two");
    EXPECT_EQ(text(R"(,"no_stop_trim":true)"), "one two");
  }
}

TEST_F(FieldEffectsTest, SpecialTokensAreTextIfAsked) {
  engine_->script = tokenizer_->Encode("x<|turn>y");
  EXPECT_EQ(Choice(kText, "").at("text").as_string(), "xy");
  EXPECT_EQ(Choice(kText, R"("skip_special_tokens":false)").at("text").as_string(), "x<|turn>y");
}

TEST_F(FieldEffectsTest, ThoughtsAreLeftOutIfAskedAndCounted) {
  engine_->script = tokenizer_->Encode("<|channel>thought\nhm\n<channel|>It is 42.");
  const json::object with = BodyOf(Ask(kMessages, ""));
  const json::object without = BodyOf(Ask(kMessages, R"("include_reasoning":false)"));
  EXPECT_EQ(with.at("choices").at(0).at("message").at("reasoning").as_string(), "hm");
  const json::object& message = without.at("choices").at(0).at("message").as_object();
  EXPECT_FALSE(message.contains("reasoning") || message.contains("reasoning_content"));
  EXPECT_EQ(message.at("content").as_string(), "It is 42.");
  EXPECT_EQ(with.at("usage"), without.at("usage"));
  EXPECT_GT(with.at("usage").at("completion_tokens_details").at("reasoning_tokens").as_int64(), 0);
}

constexpr const char* kTools = R"("tools":[{"type":"function","function":{"name":"f"}}])";

TEST_F(FieldEffectsTest, OneCallEndsTheTurnIfAsked) {
  engine_->script =
      tokenizer_->Encode("<|tool_call>call:f{a:1}<tool_call|><|tool_call>call:f{a:2}<tool_call|>");
  const auto calls = [&](const std::string& more) {
    return Choice(kMessages, kTools + more).at("message").at("tool_calls").as_array().size();
  };
  EXPECT_EQ(calls(""), 2u);
  EXPECT_EQ(calls(R"(,"parallel_tool_calls":false)"), 1u);
}

TEST_F(FieldEffectsTest, ACallsArgumentsStreamAsTheyCome) {
  engine_->script = tokenizer_->Encode(
      "<|tool_call>call:f{a:<|\"|>one two three<|\"|>,b:12}"
      "<tool_call|>");
  std::string id, name, arguments, finish;
  int num_pieces = 0;
  for (const json::value& chunk : Chunks(kMessages, kTools)) {
    const json::value& choice = chunk.at("choices").at(0);
    if (choice.at("finish_reason").is_string()) finish = choice.at("finish_reason").as_string();
    const json::object& delta = choice.at("delta").as_object();
    if (!delta.contains("tool_calls")) continue;
    ASSERT_EQ(delta.at("tool_calls").as_array().size(), 1u);
    const json::object& call = delta.at("tool_calls").at(0).as_object();
    EXPECT_EQ(call.at("index").as_int64(), 0);
    if (call.contains("id")) {
      EXPECT_EQ(num_pieces, 0);
      id = call.at("id").as_string();
      EXPECT_EQ(call.at("type").as_string(), "function");
      name = call.at("function").at("name").as_string();
    }
    arguments += std::string(call.at("function").at("arguments").as_string());
    ++num_pieces;
  }
  EXPECT_EQ(id.size(), 29u);
  EXPECT_EQ(name, "f");
  EXPECT_EQ(arguments, R"({"a":"one two three","b":12})");
  EXPECT_GE(num_pieces, 4);
  EXPECT_EQ(finish, "tool_calls");
}

TEST_F(FieldEffectsTest, SlipsOfTheFormatAreCounted) {
  engine_->script = tokenizer_->Encode("a<channel|>b<|tool_call>call:f{a}<tool_call|>");
  Ask(kMessages, kTools);
  engine_->script = tokenizer_->Encode("call:f{a:1}");
  Ask(kMessages, kTools);
  const std::string page = Get("/metrics");
  for (const char* kind : {"control", "bare_call", "broken_call"})
    EXPECT_NE(page.find("lapidary:parser_slips_total{model_name=\"pebble\",kind=\"" +
                        std::string(kind) + "\"} 1\n"),
              std::string::npos)
        << kind;
}

TEST_F(FieldEffectsTest, UsageIsInEachChunkIfAsked) {
  engine_->script = tokenizer_->Encode("one two three");
  for (const char* path : {kText, kMessages}) {
    int64_t before = 0;
    for (const json::value& chunk :
         Chunks(path, R"("stream_options":{"include_usage":true,"continuous_usage_stats":true})")) {
      const int64_t tokens = chunk.at("usage").at("completion_tokens").as_int64();
      EXPECT_GE(tokens, before);
      before = tokens;
    }
    EXPECT_EQ(before, static_cast<int64_t>(engine_->script.size()));
    for (const json::value& chunk : Chunks(path, R"("seed":1)"))
      EXPECT_FALSE(chunk.as_object().contains("usage"));
  }
}

TEST_F(FieldEffectsTest, IdsAndHeadersAreEchoed) {
  engine_->script = {7};
  for (const char* path : {kText, kMessages}) {
    const std::string reply = Ask(path, R"("request_id":"my.id:1","model":"pebble")");
    EXPECT_THAT(reply, HasSubstr("X-Request-Id: my.id:1\r\n"));
    const json::object body = BodyOf(reply);
    EXPECT_THAT(std::string(body.at("id").as_string()), HasSubstr("my.id:1"));
    EXPECT_TRUE(body.at("system_fingerprint").is_string());
    const std::string stream = Ask(path, R"("stream":true)");
    EXPECT_THAT(stream, HasSubstr("Content-Type: text/event-stream; charset=utf-8\r\n"));
    EXPECT_THAT(stream, HasSubstr("Cache-Control: no-cache\r\n"));
    EXPECT_THAT(stream, HasSubstr("X-Accel-Buffering: no\r\n"));
  }
}

TEST_F(FieldEffectsTest, ATemplateIsChosenByNameOrText) {
  const auto prompt = [&](const std::string& more) {
    const json::object reply =
        BodyOf(Post("/tokenize", R"({"messages":[{"role":"user","content":"a"}])" + more + "}"));
    return json::serialize(reply.at("tokens"));
  };
  EXPECT_EQ(prompt(R"(,"chat_template":"edge")"), prompt(""));
  EXPECT_NE(prompt(R"(,"chat_template":"thinkprefill")"), prompt(""));
  const json::string text(
      ReadFile(std::string(LAPIDARY_SOURCE_DIR) + "/models/pebble/chat_template.jinja", 1 << 20)
          .value());
  EXPECT_EQ(prompt(",\"chat_template\":" + json::serialize(text)), prompt(""));
  const std::string reply =
      Post(kMessages,
           R"({"messages":[{"role":"user","content":"a"}],"chat_template":"{{ messages }}"})");
  EXPECT_EQ(StatusOf(reply), 400);
  EXPECT_EQ(BodyOf(reply).at("error").at("code").as_string(), "template_mismatch");
  EXPECT_EQ(BodyOf(reply).at("error").at("param").as_string(), "chat_template");
}

TEST_F(FieldEffectsTest, OldFunctionMessagesAreCallsAndResults) {
  const auto prompt = [&](const std::string& call, const std::string& result) {
    const std::string reply =
        Post("/tokenize", R"({"messages":[{"role":"user","content":"a"},{"role":"assistant",)" +
                              call + "}," + result + "]}");
    EXPECT_EQ(StatusOf(reply), 200) << reply;
    return json::serialize(BodyOf(reply).at("tokens"));
  };
  EXPECT_EQ(prompt(R"("function_call":{"name":"f","arguments":"{\"x\":1}"})",
                   R"({"role":"function","name":"f","content":"2"})"),
            prompt(R"("tool_calls":[{"function":{"name":"f","arguments":"{\"x\":1}"}}])",
                   R"({"role":"tool","name":"f","content":"2"})"));
}

TEST_F(FieldEffectsTest, LogprobsHoldEachTokenOnce) {
  // A byte of a longer character, an ordinary token and the end: lm-eval counts on an entry each.
  const int32_t byte = tokenizer_->Find("<0xF0>").value_or(-1), word = tokenizer_->Encode("red")[0],
                end = tokenizer_->Find("<turn|>").value_or(-1);
  engine_->script = {byte, word, end};
  engine_->logprobs = {TokenLogprobs{byte, -0.5f, {{word, -1.5f}}, {}},
                       TokenLogprobs{word, -0.25f, {{word, -0.25f}, {byte, -2.0f}}, {}},
                       TokenLogprobs{end, -0.125f, {{end, -0.125f}}, {}}};
  engine_->edit = [&](TokenEvent& event) {
    if (event.tokens.back() == end) event.stop_id = end;
  };
  const json::value text = Choice(kText, R"("logprobs":1)").at("logprobs");
  const std::string name(tokenizer_->TokenBytes(word));
  EXPECT_EQ(text.at("tokens"), json::value({"bytes:\\xf0", name, "<turn|>"}));
  EXPECT_EQ(text.at("token_logprobs"), json::value({-0.5f, -0.25f, -0.125f}));
  // The token itself is always among its alternatives.
  EXPECT_EQ(text.at("top_logprobs").at(0),
            json::value(json::object{{name, -1.5f}, {"bytes:\\xf0", -0.5f}}));
  const json::array chat = Choice(kMessages, R"("logprobs":true,"top_logprobs":1)")
                               .at("logprobs")
                               .at("content")
                               .as_array();
  ASSERT_EQ(chat.size(), 3u);
  EXPECT_EQ(chat[0].at("bytes"), json::value(json::array{0xf0}));
  EXPECT_EQ(chat[0].at("token").as_string(), "\xef\xbf\xbd");
  EXPECT_EQ(chat[1].at("token").as_string(), name);
  EXPECT_EQ(chat[1].at("top_logprobs").at(0).at("logprob").to_number<float>(), -0.25f);
}

TEST_F(FieldEffectsTest, ModelsTellWhatTheyTakeIn) {
  const json::value model = BodyOf(Get("/v1/models")).at("data").at(0);
  EXPECT_EQ(model.at("architecture").at("input_modalities"), json::value(json::array{"text"}));
  EXPECT_EQ(model.at("max_model_len").as_int64(), 4096);
}

class KeepAliveTest : public FieldEffectsTest {
  void Configure(ApiOptions& options) override {
    options.limits.keepalive_line = std::chrono::milliseconds(20);
  }
};

// An empty line, which every client skips; a comment would break two of them.
TEST_F(KeepAliveTest, SilentStreamsSendEmptyLines) {
  engine_->script = {7};
  engine_->endless = true;
  tcp::socket socket = Connect();
  boost::asio::write(socket, boost::asio::buffer(Message(
                                 "POST", kText, R"({"prompt":"a","stream":true,"seed":1})")));
  std::string stream;
  boost::system::error_code code;
  while (!code && stream.find("\r\n1\r\n\n\r\n1\r\n\n\r\n") == std::string::npos) {
    char bytes[4096];
    stream.append(bytes, socket.read_some(boost::asio::buffer(bytes), code));
  }
  EXPECT_FALSE(code);
  EXPECT_THAT(stream, Not(HasSubstr("\n:")));
}

// A field that is known and asks for what is not there is refused; its harmless value is not.
TEST_F(FieldEffectsTest, WhatIsNotBuiltIsRefusedByName) {
  engine_->script = {7};
  for (const char* name : {"dry_multiplier", "xtc_probability", "mirostat", "logprobs_mode",
                           "kv_transfer_params", "repetition_detection", "guided_json"}) {
    const std::string reply = Post(kText, R"({"prompt":"a",")" + std::string(name) + "\":0.8}");
    EXPECT_EQ(StatusOf(reply), 400);
    EXPECT_EQ(BodyOf(reply).at("error").at("param").as_string(), name);
  }
  Ask(kText, R"("dry_multiplier":0,"xtc_probability":0,"mirostat":0,"samplers":[])");
}

}  // namespace
}  // namespace lapidary
