// POST /generate, SGLang's native form.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <boost/json/value_from.hpp>

#include "tests/server/api_server_fixture.h"

namespace lapidary {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class GenerateTest : public ApiServerTest {
 protected:
  json::value Ask(const std::string& body) {
    const std::string reply = Post("/generate", body);
    EXPECT_EQ(StatusOf(reply), 200) << reply;
    return json::parse(reply.substr(reply.find("\r\n\r\n") + 4));
  }
  std::string Ids(const std::string& text) {
    return json::serialize(json::value_from(tokenizer_->Encode(text)));
  }
};

TEST_F(GenerateTest, TextAndIdsGiveTextAndIds) {
  const json::value text = Ask(R"({"text":"Hello there","rid":"my-id"})");
  EXPECT_EQ(text.at("text").as_string(), "Hello there");
  EXPECT_EQ(json::serialize(text.at("output_ids")), Ids("Hello there"));
  const json::value& meta = text.at("meta_info");
  EXPECT_EQ(meta.at("id").as_string(), "my-id");
  EXPECT_EQ(meta.at("finish_reason").at("type").as_string(), "length");
  EXPECT_EQ(meta.at("completion_tokens"), meta.at("finish_reason").at("length"));
  EXPECT_EQ(meta.at("prompt_tokens").to_number<int>(),
            meta.at("completion_tokens").to_number<int>() + 1);
  EXPECT_EQ(meta.at("spec_accept_length").to_number<double>(), 1.0);
  const json::value ids = Ask("{\"input_ids\":[5,6,7]}");
  EXPECT_EQ(json::serialize(ids.at("output_ids")), "[6,7]");
}

TEST_F(GenerateTest, AListGivesAList) {
  const json::value replies =
      Ask(R"({"text":["One","Two words"],"sampling_params":{"max_new_tokens":50}})");
  ASSERT_EQ(replies.as_array().size(), 2u);
  EXPECT_EQ(replies.at(0).at("text").as_string(), "One");
  EXPECT_EQ(replies.at(1).at("text").as_string(), "Two words");
  EXPECT_EQ(Ask(R"({"input_ids":[[5,6]]})").as_array().size(), 1u);
  EXPECT_EQ(Ask(R"({"input_ids":[5,6],"sampling_params":{"n":2}})").as_array().size(), 2u);
}

TEST_F(GenerateTest, AStreamHoldsTheWholeSoFar) {
  const std::string stream = Post("/generate", R"({"text":"Hello there, you","stream":true})");
  std::string last;
  size_t num_ids = 0, num_events = 0;
  for (size_t at = stream.find("data: {"); at != std::string::npos;
       at = stream.find("data: {", at + 1)) {
    const json::value event = json::parse(stream.substr(at + 6, stream.find('\n', at) - at - 6));
    const std::string text(event.at("text").as_string());
    EXPECT_TRUE(text.starts_with(last)) << text;
    EXPECT_GT(event.at("output_ids").as_array().size(), num_ids);
    num_ids = event.at("output_ids").as_array().size();
    EXPECT_EQ(event.at("meta_info").at("completion_tokens").to_number<size_t>(), num_ids);
    last = text;
    ++num_events;
  }
  EXPECT_EQ(last, "Hello there, you");
  EXPECT_EQ(num_events, num_ids);
  EXPECT_THAT(stream, HasSubstr("data: [DONE]\n\n"));
}

TEST_F(GenerateTest, SamplingParamsReachTheEngine) {
  Ask(R"({"text":"Hello there","sampling_params":{"temperature":0.5,"top_k":-1,"top_p":0.9,
      "min_p":0.1,"max_new_tokens":3,"min_new_tokens":2,"stop_token_ids":[9],"ignore_eos":false,
      "sampling_seed":4,"presence_penalty":1,"frequency_penalty":-1,"repetition_penalty":2}})");
  const Request request = engine_->last_request();
  EXPECT_FLOAT_EQ(request.sampling.temperature, 0.5f);
  EXPECT_EQ(request.sampling.top_k, 0);
  EXPECT_FLOAT_EQ(request.sampling.min_p, 0.1f);
  EXPECT_EQ(request.max_tokens, 3);
  EXPECT_EQ(request.sampling.min_tokens, 2);
  EXPECT_EQ(request.sampling.seed, 4u);
  EXPECT_THAT(request.sampling.stop_ids, ElementsAre(9));
  EXPECT_FLOAT_EQ(request.sampling.frequency_penalty, -1);
  Ask(R"({"text":"a b c"})");
  EXPECT_EQ(engine_->last_request().max_tokens, 128);
}

TEST_F(GenerateTest, AStopStringEndsAndIsNamed) {
  const json::value reply = Ask(R"({"text":"Hello there","sampling_params":{"stop":"ere"}})");
  EXPECT_EQ(reply.at("text").as_string(), "Hello th");
  EXPECT_EQ(reply.at("meta_info").at("finish_reason"),
            json::parse(R"({"type":"stop","matched":"ere"})"));
}

TEST_F(GenerateTest, Logprobs) {
  engine_->script = {7};
  engine_->prompt_logprobs = {std::nullopt, TokenLogprobs{6, -0.5f, {{9, -0.25f}}, {}},
                              TokenLogprobs{8, -0.75f, {{8, -0.75f}}, {}}};
  engine_->logprobs = {TokenLogprobs{7, -1.0f, {{7, -1.0f}}, {{3, -4.0f}}}};
  const json::value meta = Ask(R"({"input_ids":[5,6,8],"return_logprob":true,"logprob_start_len":0,
          "top_logprobs_num":1,"token_ids_logprob":[3]})")
                               .at("meta_info");
  EXPECT_EQ(engine_->last_request().sampling.num_prompt_logprobs, 1);
  EXPECT_EQ(json::serialize(meta.at("output_token_logprobs")), "[[-1E0,7,null]]");
  EXPECT_EQ(json::serialize(meta.at("output_top_logprobs")), "[[[-1E0,7,null],[-4E0,3,null]]]");
  EXPECT_EQ(json::serialize(meta.at("input_token_logprobs")),
            "[[null,5,null],[-5E-1,6,null],[-7.5E-1,8,null]]");
  const json::value later =
      Ask(R"({"input_ids":[5,6,8],"return_logprob":true,"logprob_start_len":1})").at("meta_info");
  EXPECT_EQ(json::serialize(later.at("input_token_logprobs")), "[[null,6,null],[-7.5E-1,8,null]]");
  const json::value none = Ask(R"({"input_ids":[5,6,8],"return_logprob":true})").at("meta_info");
  EXPECT_EQ(engine_->last_request().sampling.num_prompt_logprobs, -1);
  EXPECT_EQ(none.at("output_token_logprobs").as_array().size(), 1u);
}

TEST_F(GenerateTest, RefusalsNameTheField) {
  const auto param = [&](const std::string& body) {
    const std::string reply = Post("/generate", body);
    EXPECT_EQ(StatusOf(reply), 400) << reply;
    return std::string(BodyOf(reply).at("error").at("param").as_string());
  };
  EXPECT_EQ(param("{}"), "text");
  EXPECT_EQ(param(R"({"text":"a","input_ids":[1]})"), "text");
  EXPECT_EQ(param(R"({"text":[[1]]})"), "text");
  EXPECT_EQ(param(R"({"input_ids":"a"})"), "input_ids");
  EXPECT_EQ(param(R"({"input_ids":[1024]})"), "input_ids");
  EXPECT_EQ(param(R"({"text":"a","image_data":"x"})"), "image_data");
  EXPECT_EQ(param(R"({"text":"a","lora_path":"x"})"), "lora_path");
  EXPECT_EQ(param(R"({"text":"a","sampling_params":[]})"), "sampling_params");
  EXPECT_EQ(param(R"({"text":"a","sampling_params":{"temperature":-1}})"),
            "sampling_params.temperature");
  EXPECT_EQ(param(R"({"text":"a","sampling_params":{"max_new_tokens":1.5}})"),
            "sampling_params.max_new_tokens");
  EXPECT_EQ(param(R"({"text":"a","sampling_params":{"regex":"x"}})"), "sampling_params.regex");
  EXPECT_EQ(param(R"({"text":"a","top_logprobs_num":21})"), "top_logprobs_num");
}

}  // namespace
}  // namespace lapidary
