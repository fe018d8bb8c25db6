// What a request tells the engine beside its tokens, and what a reply tells of the engine's work.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/api_server_fixture.h"

namespace lapidary {
namespace {

using testing::HasSubstr;

constexpr const char* kTurns =
    R"({"messages":[{"role":"user","content":"<|turn>hi"},{"role":"assistant","content":"yes"},)"
    R"({"role":"user","content":"and?"}],"timings":true})";

class SchedulingTest : public ApiServerTest {
 protected:
  Request Asked(const std::string& path, const std::string& body, const std::string& key = "") {
    const std::string header = key.empty() ? "" : "Authorization: Bearer " + key + "\r\n";
    const std::string reply = Raw(Message("POST", path, body, header));
    EXPECT_EQ(StatusOf(reply), 200) << reply;
    return engine_->last_request();
  }
  // Bursts of two drafts: the first one accepts both, the second one.
  void ScriptBursts(const std::string& text) {
    engine_->script = tokenizer_->Encode(text);
    engine_->step_tokens = 3;
    engine_->edit = [this](TokenEvent& event) {
      drafted_ += 2;
      accepted_ += static_cast<int>(event.tokens.size()) - 1;
      event.drafted_tokens = drafted_;
      event.accepted_tokens = accepted_;
      event.cached_tokens = 64;
      event.times = {1'000'000, 1'002'000, 1'005'000, 1'009'500};
    };
  }
  int drafted_ = 0, accepted_ = 0;
};

// The control string in a message's text forges no border.
TEST_F(SchedulingTest, TurnBordersAreWhereTurnsOpen) {
  const Request request = Asked("/v1/chat/completions", kTurns);
  const int32_t turn = tokenizer_->Find("<|turn>").value_or(-1);
  ASSERT_EQ(request.turn_borders.size(), 4u);  // three turns and the one to be written
  for (const int32_t border : request.turn_borders)
    EXPECT_EQ(request.prompt[static_cast<size_t>(border)], turn);
  EXPECT_TRUE(std::is_sorted(request.turn_borders.begin(), request.turn_borders.end()));
  EXPECT_EQ(std::count(request.prompt.begin(), request.prompt.end(), turn), 4);
  EXPECT_TRUE(Asked("/v1/completions", R"({"prompt":"plain text"})").turn_borders.empty());
  EXPECT_EQ(Asked("/generate", R"({"text":"a<|turn>b"})").turn_borders.size(), 1u);
}

TEST_F(SchedulingTest, DraftsOfARequest) {
  for (const auto& [path, input] :
       {std::pair{"/v1/completions", "prompt"}, {"/generate", "text"}}) {
    const auto body = [&](const std::string& rest) {
      return std::string("{\"") + input + "\":\"some text\"" + rest + "}";
    };
    EXPECT_EQ(Asked(path, body("")).max_drafts, std::nullopt);
    EXPECT_EQ(Asked(path, body(",\"speculative_num_steps\":0")).max_drafts, 0);
    EXPECT_EQ(Asked(path, body(",\"speculative_num_steps\":8")).max_drafts, 8);
    const std::string wrong = Post(path, body(",\"speculative_num_steps\":9"));
    EXPECT_EQ(StatusOf(wrong), 400);
    EXPECT_THAT(wrong, HasSubstr("speculative_num_steps"));
  }
}

TEST_F(SchedulingTest, PriorityWithoutThePolicyIsCounted) {
  EXPECT_EQ(Asked("/v1/completions", R"({"prompt":"a b","priority":-5})").priority, 0);
  EXPECT_EQ(server_->num_ignored_fields(), 1);
  EXPECT_EQ(StatusOf(Post("/v1/completions", R"({"prompt":"a b","priority":2147483648})")), 400);
}

class LowFirst : public SchedulingTest {
  void Configure(Backend& backend) override { backend.priority_order = PriorityOrder::kLowFirst; }
};
TEST_F(LowFirst, PriorityIsTheEngines) {
  EXPECT_EQ(Asked("/v1/completions", R"({"prompt":"a b","priority":-5})").priority, -5);
  EXPECT_EQ(Asked("/generate", R"({"text":"a b","priority":7})").priority, 7);
  EXPECT_EQ(Asked("/v1/completions", R"({"prompt":"a b"})").priority, 0);
  EXPECT_EQ(server_->num_ignored_fields(), 0);
}

class HighFirst : public SchedulingTest {
  void Configure(Backend& backend) override { backend.priority_order = PriorityOrder::kHighFirst; }
};
TEST_F(HighFirst, LargerValuesComeFirst) {
  const auto priority = [&](const std::string& value) {
    return Asked("/v1/completions", R"({"prompt":"a b","priority":)" + value + "}").priority;
  };
  const int lowest = priority("-2147483648"),
            unset = Asked("/generate", R"({"text":"a"})").priority;
  EXPECT_LT(priority("2147483647"), priority("1"));
  EXPECT_LT(priority("1"), unset);
  EXPECT_EQ(priority("0"), unset);
  EXPECT_LT(unset, lowest);
}

class Keys : public SchedulingTest {
  void Configure(ApiOptions& options) override { options.api_keys = {"one", "two"}; }
};
TEST_F(Keys, PromptsAreSharedUnderOneKeyAndSalt) {
  const auto salt = [&](const std::string& key, const std::string& rest) {
    return Asked("/v1/completions", R"({"prompt":"a b")" + rest + "}", key).salt;
  };
  const CacheSalt one = salt("one", "");
  EXPECT_EQ(one, salt("one", ""));
  EXPECT_NE(one, salt("two", ""));
  const CacheSalt salted = salt("one", R"(,"cache_salt":"x")");
  EXPECT_NE(one, salted);
  EXPECT_EQ(salted, salt("one", R"(,"cache_salt":"x")"));
  EXPECT_NE(salted, salt("two", R"(,"cache_salt":"x")"));
  EXPECT_NE(salted, salt("one", R"(,"cache_salt":"y")"));
  EXPECT_NE(one, CacheSalt{});
  // The same key at another server: the secret is drawn at start.
  ApiOptions options;
  options.port = 0;
  options.api_keys = {"one"};
  Backend backend;
  backend.tokenizer = tokenizer_;
  ApiServer other(options);
  other.Attach(engine_, backend);
  Raw(Message("POST", "/v1/completions", R"({"prompt":"a b"})", "x-api-key: one\r\n"),
      other.port());
  EXPECT_NE(engine_->last_request().salt, one);
}

TEST_F(SchedulingTest, UsageTellsCachedTokensAndDrafts) {
  ScriptBursts("one two three four");
  const std::vector<std::pair<const char*, std::string>> requests = {
      {"/v1/completions", R"({"prompt":"a b","timings":true})"}, {"/v1/chat/completions", kTurns}};
  for (const auto& [path, body] : requests) {
    drafted_ = accepted_ = 0;
    const json::object reply = BodyOf(Post(path, body));
    const json::value& usage = reply.at("usage");
    EXPECT_EQ(usage.at("prompt_tokens_details").at("cached_tokens").to_number<int>(), 64);
    const json::value& details = usage.at("completion_tokens_details");
    EXPECT_EQ(details.at("accepted_prediction_tokens").to_number<int>(), accepted_);
    EXPECT_EQ(details.at("rejected_prediction_tokens").to_number<int>(), drafted_ - accepted_);
    const json::value& timings = reply.at("choices").at(0).at("timings");
    EXPECT_EQ(timings.at("queue_ms").to_number<double>(), 2.0);
    EXPECT_EQ(timings.at("prefill_ms").to_number<double>(), 3.0);
    EXPECT_EQ(timings.at("decode_ms").to_number<double>(), 4.5);
    EXPECT_EQ(timings.at("cached_tokens").to_number<int>(), 64);
    EXPECT_EQ(timings.at("drafted_tokens").to_number<int>(), drafted_);
    EXPECT_EQ(timings.at("accepted_tokens").to_number<int>(), accepted_);
  }
  const std::string stream =
      Post("/v1/completions", R"({"prompt":"a b","timings":true,"stream":true})");
  EXPECT_THAT(stream, HasSubstr("\"queue_ms\":2E0"));
  EXPECT_EQ(stream.find("timings"), stream.rfind("timings"));  // with the finish reason only
  EXPECT_THAT(Post("/generate", R"({"text":"a b","timings":true})"), HasSubstr("\"prefill_ms\""));
  EXPECT_THAT(Post("/generate", R"({"text":"a b"})"), Not(HasSubstr("\"prefill_ms\"")));
}

// The stop string ends inside a step: what the step brought after it is neither shown nor billed,
// and its drafts were made in vain.
TEST_F(SchedulingTest, TokensAfterAStopStringAreNotBilled) {
  ScriptBursts("1234567");
  engine_->endless = true;
  ASSERT_EQ(engine_->script.size(), 7u);  // a token a digit; the fifth is inside the second burst
  const std::string stop = "5";
  const std::vector<std::pair<const char*, std::string>> requests = {
      {"/v1/completions", R"({"prompt":"a b","stop":")" + stop + "\"}"},
      {"/v1/chat/completions",
       R"({"messages":[{"role":"user","content":"a"}],"stop":")" + stop + "\"}"}};
  for (const auto& [path, body] : requests) {
    drafted_ = accepted_ = 0;
    const json::object reply = BodyOf(Post(path, body));
    EXPECT_EQ(reply.at("choices").at(0).at("finish_reason").as_string(), "stop") << path;
    const json::value& usage = reply.at("usage");
    EXPECT_EQ(usage.at("completion_tokens").to_number<int>(), 5) << path;
    const json::value& details = usage.at("completion_tokens_details");
    EXPECT_EQ(details.at("accepted_prediction_tokens").to_number<int>(), 4) << path;
  }
  drafted_ = accepted_ = 0;
  const json::object reply =
      BodyOf(Post("/generate", R"({"text":"a b","sampling_params":{"stop":")" + stop + "\"}}"));
  EXPECT_EQ(reply.at("meta_info").at("completion_tokens").to_number<int>(), 5);
  EXPECT_EQ(reply.at("output_ids").as_array().size(), 5u);
  EXPECT_GE(engine_->num_cancelled_choices, 3);
}

}  // namespace
}  // namespace lapidary
