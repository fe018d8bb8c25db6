// What the flags of `serve` change for requests.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <boost/json/value_from.hpp>

#include "tests/server/api_server_fixture.h"

namespace lapidary {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kAnswer =
    "<|channel>thought\nhm\n<channel|>It is 42.<|tool_call>call:f{a:1}<tool_call|>";
constexpr const char* kQuestion =
    R"({"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f"}}]})";

class OptionsTest : public ApiServerTest {
 protected:
  json::object Message() {
    return BodyOf(Post("/v1/chat/completions", kQuestion))
        .at("choices")
        .at(0)
        .at("message")
        .as_object();
  }
};

class NoReasoningParser : public OptionsTest {
  void Configure(Backend& backend) override { backend.parses_reasoning = false; }
};
TEST_F(NoReasoningParser, ThoughtsStayInTheContent) {
  engine_->script = tokenizer_->Encode(kAnswer);
  const json::object message = Message();
  EXPECT_EQ(message.at("content").as_string(), "thought\nhm\nIt is 42.");
  EXPECT_FALSE(message.contains("reasoning"));
  EXPECT_EQ(message.at("tool_calls").as_array().size(), 1u);
}

class NoToolParser : public OptionsTest {
  void Configure(Backend& backend) override { backend.parses_tools = false; }
};
TEST_F(NoToolParser, CallsStayInTheContent) {
  engine_->script = tokenizer_->Encode(kAnswer);
  const json::object message = Message();
  EXPECT_EQ(message.at("content").as_string(), "It is 42.call:f{a:1}");
  EXPECT_EQ(message.at("reasoning").as_string(), "hm");
  EXPECT_FALSE(message.contains("tool_calls"));
}

class AnyName : public OptionsTest {
  void Configure(ApiOptions& options) override {
    options.served_names = {"a", "b"};
    options.serves_any_name = true;
    options.health_port = 0;
  }
};
TEST_F(AnyName, IsServedAndEchoed) {
  for (const char* name : {"a", "b", "gpt-4"}) {
    const std::string body = std::string(R"({"prompt":"x y","model":")") + name + "\"}";
    const json::object reply = BodyOf(Post("/v1/completions", body));
    EXPECT_EQ(reply.at("model").as_string(), name);
  }
  EXPECT_EQ(BodyOf(Get("/v1/models")).at("data").as_array().size(), 2u);
}
TEST_F(AnyName, HealthHasAPortOfItsOwn) {
  const int port = server_->health_port();
  ASSERT_GT(port, 0);
  for (const char* path : {"/health", "/v1/health", "/ready", "/ping", "/live"})
    EXPECT_EQ(StatusOf(Get(path, port)), 200) << path;
  EXPECT_EQ(StatusOf(Get("/v1/models", port)), 404);
  EXPECT_EQ(StatusOf(Get("/version", port)), 404);
}

TEST(Loading, HealthTellsBytes) {
  ApiOptions options;
  options.port = 0;
  options.health_port = 0;
  ApiServer server(options);
  boost::asio::io_context context;
  const auto health = [&] {
    tcp::socket socket(context);
    socket.connect(
        {boost::asio::ip::make_address("127.0.0.1"), static_cast<uint16_t>(server.health_port())});
    boost::asio::write(socket,
                       boost::asio::buffer(std::string("GET /health HTTP/1.1\r\nHost: localhost\r\n"
                                                       "Connection: close\r\n\r\n")));
    std::string text;
    boost::system::error_code code;
    boost::asio::read(socket, boost::asio::dynamic_buffer(text), code);
    EXPECT_THAT(text, HasSubstr(" 503 "));
    return text.substr(text.find("\r\n\r\n") + 4);
  };
  EXPECT_EQ(health(), R"({"status":"loading"})");
  server.SetProgress(3, 12);
  EXPECT_EQ(health(), R"({"status":"loading","loaded_bytes":3,"total_bytes":12})");
}

class IdsOnly : public OptionsTest {
  void Configure(Backend& backend) override { backend.tokenizer = nullptr; }
};
TEST_F(IdsOnly, IdsInIdsOut) {
  const std::string reply =
      Post("/v1/completions", R"({"prompt":[2,17,300],"max_tokens":9,"logprobs":0})");
  ASSERT_EQ(StatusOf(reply), 200) << reply;
  const json::object choice = BodyOf(reply).at("choices").at(0).as_object();
  EXPECT_EQ(choice.at("text").as_string(), "");
  EXPECT_EQ(json::serialize(choice.at("token_ids")), "[17,300]");
  EXPECT_EQ(json::serialize(choice.at("prompt_token_ids")), "[2,17,300]");
  EXPECT_EQ(choice.at("logprobs").at("tokens").at(0).as_string(), "token_id:17");
  const std::string stream =
      Post("/v1/completions", R"({"prompt":[2,17,300],"max_tokens":9,"stream":true})");
  EXPECT_THAT(stream, HasSubstr("\"token_ids\":[17]"));
  EXPECT_THAT(stream, HasSubstr("\"token_ids\":[300]"));
}
TEST_F(IdsOnly, WhatNeedsTextIsRefusedByName) {
  const auto param = [&](const std::string& path, const std::string& body) {
    const std::string reply = Post(path, body);
    EXPECT_EQ(StatusOf(reply), 400) << reply;
    EXPECT_THAT(reply, HasSubstr("--skip-tokenizer-init")) << path << body;
    return std::string(BodyOf(reply).at("error").at("param").as_string());
  };
  EXPECT_EQ(param("/v1/completions", R"({"prompt":"text"})"), "prompt");
  EXPECT_EQ(param("/v1/completions", R"({"prompt":["text"]})"), "prompt");
  EXPECT_EQ(param("/v1/completions", R"({"prompt":[1],"stop":"x"})"), "stop");
  EXPECT_EQ(param("/v1/completions", R"({"prompt":[1],"bad_words":["x"]})"), "bad_words");
  EXPECT_EQ(param("/v1/completions", R"({"prompt":[1],"echo":true})"), "echo");
  EXPECT_EQ(param("/v1/chat/completions", kQuestion), "messages");
  EXPECT_EQ(param("/tokenize", R"({"prompt":"x"})"), "prompt");
  EXPECT_EQ(param("/detokenize", R"({"tokens":[1]})"), "tokens");
}

TEST_F(OptionsTest, ReturnedIdsAreWhatTheEngineGave) {
  engine_->script = tokenizer_->Encode("It is 42.");
  const json::value ids = json::value_from(engine_->script);
  const json::object chat =
      BodyOf(Post("/v1/chat/completions",
                  R"({"messages":[{"role":"user","content":"hi"}],"return_token_ids":true})"));
  EXPECT_EQ(chat.at("choices").at(0).at("token_ids"), ids);
  EXPECT_EQ(chat.at("prompt_token_ids").as_array().size(),
            chat.at("usage").at("prompt_tokens").to_number<size_t>());
  const json::object text = BodyOf(
      Post("/v1/completions", R"({"prompt":[5,6],"return_token_ids":true,"max_tokens":50})"));
  EXPECT_EQ(text.at("choices").at(0).at("token_ids"), ids);
  EXPECT_EQ(json::serialize(text.at("choices").at(0).at("prompt_token_ids")), "[5,6]");
}

TEST_F(OptionsTest, LogprobFieldsReachTheEngineAndComeBack) {
  engine_->script = {7};
  engine_->prompt_logprobs = {std::nullopt, TokenLogprobs{6, -0.5f, {{9, -0.25f}, {6, -0.5f}}, {}}};
  engine_->logprobs = {TokenLogprobs{7, -1.0f, {{7, -1.0f}}, {{3, -4.0f}}}};
  const std::string fields = R"("prompt_logprobs":2,"logprob_token_ids":[3])";
  const json::object text = BodyOf(
      Post("/v1/completions", R"({"prompt":[5,6],"max_tokens":1,"logprobs":1,)" + fields + "}"));
  EXPECT_EQ(engine_->last_request().sampling.num_prompt_logprobs, 2);
  EXPECT_THAT(engine_->last_request().sampling.logprob_ids, ElementsAre(3));
  const json::object& choice = text.at("choices").at(0).as_object();
  const json::array& prompt = choice.at("prompt_logprobs").as_array();
  ASSERT_EQ(prompt.size(), 2u);
  EXPECT_TRUE(prompt[0].is_null());
  EXPECT_EQ(prompt[1].at("9").at("rank").to_number<int>(), 1);
  EXPECT_EQ(prompt[1].at("6").at("rank").to_number<int>(), 2);
  EXPECT_EQ(prompt[1].at("6").at("logprob").to_number<double>(), -0.5);
  EXPECT_EQ(choice.at("logprobs").at("top_logprobs").at(0).as_object().size(), 2u);

  const json::object chat = BodyOf(Post(
      "/v1/chat/completions", R"({"messages":[{"role":"user","content":"hi"}],)" + fields + "}"));
  EXPECT_EQ(chat.at("prompt_logprobs").as_array().size(), 2u);
  const json::value& entry = chat.at("choices").at(0).at("logprobs").at("content").at(0);
  EXPECT_EQ(entry.at("top_logprobs").at(1).at("logprob").to_number<double>(), -4.0);
}

class ThinkingByDefault : public OptionsTest {
  void Configure(Backend& backend) override {
    backend.chat_defaults.enable_thinking = true;
    backend.seeds = std::make_shared<SeedSequence>(1);
  }
};
TEST_F(ThinkingByDefault, UnlessTheRequestSaysOtherwise) {
  const auto prompt = [&](const std::string& more) {
    EXPECT_EQ(StatusOf(Post("/v1/chat/completions",
                            R"({"messages":[{"role":"user","content":"hi"}])" + more + "}")),
              200);
    return tokenizer_->Decode(engine_->last_request().prompt, false);
  };
  EXPECT_THAT(prompt(""), HasSubstr("<|think|>"));
  EXPECT_THAT(prompt(R"(,"reasoning_effort":"none")"), testing::Not(HasSubstr("<|think|>")));
  EXPECT_THAT(prompt(R"(,"chat_template_kwargs":{"enable_thinking":false})"),
              testing::Not(HasSubstr("<|think|>")));
}
TEST_F(ThinkingByDefault, SeedsFollowTheirStart) {
  std::vector<uint64_t> seeds;
  for (int i = 0; i < 3; ++i) {
    Post("/v1/completions", R"({"prompt":[5,6],"max_tokens":1})");
    seeds.push_back(engine_->last_request().sampling.seed);
  }
  SeedSequence again(1);
  for (const uint64_t seed : seeds) EXPECT_EQ(seed, again.Next());
  EXPECT_NE(seeds[0], seeds[1]);
  EXPECT_NE(SeedSequence(2).Next(), seeds[0]);
  Post("/v1/completions", R"({"prompt":[5,6],"max_tokens":1,"seed":9})");
  EXPECT_EQ(engine_->last_request().sampling.seed, 9u);
}

}  // namespace
}  // namespace lapidary
