// /tokenize, /detokenize, /tokenizer_info.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <boost/json/value_from.hpp>

#include "tests/server/api_server_fixture.h"

namespace lapidary {
namespace {

using testing::HasSubstr;

class TokenizeTest : public ApiServerTest {
 protected:
  void Configure(Backend& backend) override { backend.chat_template_text = "{{ messages }}"; }
  json::object Tokenized(const std::string& body) {
    const std::string reply = Post("/tokenize", body);
    EXPECT_EQ(StatusOf(reply), 200) << reply;
    return BodyOf(reply);
  }
  std::string Text(const json::object& tokens) {
    const json::object body{{"tokens", tokens.at("tokens")}};
    const json::object reply = BodyOf(Post("/detokenize", json::serialize(body)));
    EXPECT_EQ(reply.at("text"), reply.at("prompt"));
    return std::string(reply.at("text").as_string());
  }
};

TEST_F(TokenizeTest, PromptWithAndWithoutBos) {
  const json::object with = Tokenized(R"({"prompt":"Hello there","return_token_strs":true})");
  EXPECT_EQ(Text(with), "<bos>Hello there");
  EXPECT_EQ(with.at("count").to_number<size_t>(), with.at("tokens").as_array().size());
  EXPECT_EQ(with.at("token_strs").as_array().size(), with.at("tokens").as_array().size());
  EXPECT_EQ(with.at("token_strs").at(0).as_string(), "<bos>");
  EXPECT_EQ(with.at("max_model_len").to_number<int>(), 4096);
  const json::object without = Tokenized(R"({"prompt":"Hello there","add_special_tokens":false})");
  EXPECT_EQ(Text(without), "Hello there");
  EXPECT_TRUE(without.at("token_strs").is_null());
}

TEST_F(TokenizeTest, MessagesAsTheChatSendsThem) {
  const std::string messages =
      R"("messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"<turn|> hi"}],)"
      R"("tools":[{"type":"function","function":{"name":"f"}}])";
  for (const char* more : {"", R"(,"chat_template_kwargs":{"enable_thinking":true})",
                           R"(,"add_generation_prompt":false)"}) {
    const json::object tokens = Tokenized("{" + messages + more + "}");
    EXPECT_EQ(StatusOf(Post("/v1/chat/completions", "{" + messages + more + "}")), 200);
    EXPECT_EQ(tokens.at("tokens"), json::value_from(engine_->last_request().prompt)) << more;
  }
}

TEST_F(TokenizeTest, RefusalsNameTheField) {
  const auto param = [&](const std::string& path, const std::string& body) {
    const std::string reply = Post(path, body);
    EXPECT_EQ(StatusOf(reply), 400) << reply;
    return std::string(BodyOf(reply).at("error").at("param").as_string());
  };
  EXPECT_EQ(param("/tokenize", "{}"), "prompt");
  EXPECT_EQ(param("/tokenize", R"({"prompt":[1]})"), "prompt");
  EXPECT_EQ(param("/tokenize", R"({"prompt":"a","messages":[{"role":"user","content":"b"}]})"),
            "prompt");
  EXPECT_EQ(param("/tokenize", R"({"messages":[{"role":"king","content":"b"}]})"),
            "messages[0].role");
  EXPECT_EQ(param("/tokenize", R"({"prompt":"a","add_special_tokens":1})"), "add_special_tokens");
  EXPECT_EQ(param("/detokenize", "{}"), "tokens");
  EXPECT_EQ(param("/detokenize", R"({"tokens":[1024]})"), "tokens");
}

TEST_F(TokenizeTest, Info) {
  const json::object info = BodyOf(Get("/tokenizer_info"));
  EXPECT_EQ(info.at("bos_token").as_string(), "<bos>");
  EXPECT_EQ(info.at("eos_token").as_string(), "<eos>");
  EXPECT_EQ(info.at("pad_token").as_string(), "<pad>");
  EXPECT_EQ(info.at("chat_template").as_string(), "{{ messages }}");
  EXPECT_EQ(info.at("model_max_length").to_number<int>(), 4096);
}

}  // namespace
}  // namespace lapidary
