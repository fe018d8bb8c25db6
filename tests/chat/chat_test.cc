#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <sstream>
#include <thread>
#include <vector>

#include "app/chat/chat_partner.h"
#include "app/chat/sse_reader.h"
#include "server/api_server.h"
#include "tests/program.h"
#include "tests/server/scripted_engine.h"

namespace lapidary {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

TEST(SseReader, LinesInAnyCut) {
  const std::string stream =
      "data: {\"a\":1}\n\n: a comment\n\n\ndata:{\"b\":2}\r\n\r\nevent: x\ndata: [DONE]\n\n";
  for (size_t cut = 1; cut <= stream.size(); ++cut) {
    SseReader reader;
    std::vector<std::string> found;
    for (size_t at = 0; at < stream.size(); at += cut)
      for (std::string& data : reader.Push(std::string_view(stream).substr(at, cut)))
        found.push_back(std::move(data));
    EXPECT_THAT(found, ElementsAre("{\"a\":1}", "{\"b\":2}", "[DONE]")) << cut;
  }
}

constexpr const char* kReply = "<|channel>thought\nhm\n<channel|>It is \x1b[31m42\x1b[0m.<turn|>";

// A server and an in-process partner over the same script.
class ChatTest : public testing::Test {
 protected:
  void SetUp() override {
    auto loaded = Tokenizer::Load(std::string(LAPIDARY_SOURCE_DIR) + "/models/pebble");
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    backend_.tokenizer = std::make_shared<const Tokenizer>(std::move(loaded).value());
    engine_ = std::make_shared<ScriptedEngine>(backend_.tokenizer->vocab_size());
    engine_->script = backend_.tokenizer->Encode(kReply);
    ApiOptions options;
    options.port = 0;
    options.api_keys = {"key"};
    server_ = std::make_unique<ApiServer>(options);
    server_->Attach(engine_, backend_);
    url_ = "http://127.0.0.1:" + std::to_string(server_->port());
  }

  // The deltas of one reply, joined.
  struct Said {
    std::string thought, content, error;
    bool operator==(const Said&) const = default;
  };
  static Said Ask(
      ChatPartner& partner, const char* messages,
      const ChatPartner::Interrupted& interrupted = [] { return false; }) {
    Said said;
    const Status status = partner.Stream(
        {{"messages", json::parse(messages)}, {"stream", true}},
        [&](const json::object& event) {
          const json::object& delta = event.at("choices").at(0).at("delta").as_object();
          if (const json::value* text = delta.if_contains("reasoning"))
            said.thought += text->as_string();
          if (const json::value* text = delta.if_contains("content"))
            said.content += text->as_string();
        },
        interrupted);
    if (!status.ok()) said.error = status.error().message;
    return said;
  }

  std::shared_ptr<ScriptedEngine> engine_;
  Backend backend_;
  std::unique_ptr<ApiServer> server_;
  std::string url_;
};

constexpr const char* kHello = R"([{"role":"user","content":"Hello"}])";

TEST_F(ChatTest, BothPartnersSayTheSame) {
  const auto local = MakeLocalPartner(engine_, backend_);
  for (const char* path : {"", "/", "/v1", "/v1/"}) {
    const auto remote = MakeRemotePartner(url_ + path, "key", "");
    const Said said = Ask(*remote, kHello);
    EXPECT_EQ(said, (Said{"hm", "It is \x1b[31m42\x1b[0m.", ""})) << path << said.error;
    EXPECT_EQ(Ask(*local, kHello), said);
  }
}

TEST_F(ChatTest, BothPartnersCancel) {
  engine_->endless = true;
  const auto local = MakeLocalPartner(engine_, backend_);
  const auto remote = MakeRemotePartner(url_, "key", "");
  int expected = 0;
  for (ChatPartner* partner : {local.get(), remote.get()}) {
    int asked = 0;
    const Said said = Ask(*partner, kHello, [&] { return ++asked > 3; });
    EXPECT_EQ(said.error, "");
    EXPECT_EQ(said.thought, "hm");
    ++expected;
    for (int i = 0; i < 100 && engine_->num_cancelled < expected; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(engine_->num_cancelled, expected);
  }
}

TEST_F(ChatTest, RefusalsAreSentences) {
  const auto local = MakeLocalPartner(engine_, backend_);
  const auto remote = MakeRemotePartner(url_, "key", "");
  EXPECT_THAT(Ask(*local, "[]").error, HasSubstr("'messages' must be"));
  EXPECT_THAT(Ask(*remote, "[]").error, HasSubstr("the server says 400: 'messages' must be"));
  const auto error_of = [](const std::string& url, const std::string& key) {
    try {
      MakeRemotePartner(url, key, "");
    } catch (const StartupError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(error_of(url_, "wrong"), HasSubstr("the server says 401"));
  EXPECT_THAT(error_of("127.0.0.1:8000", ""), HasSubstr("does not begin with http://"));
  EXPECT_THAT(error_of("http://127.0.0.1:x", ""), HasSubstr("is no address"));
  EXPECT_THAT(error_of("http://127.0.0.1:1", ""), HasSubstr("does not answer"));
}

TEST_F(ChatTest, ProgramOverPipesIsPlainText) {
  const ProgramResult result =
      RunProgram(LAPIDARY_PROGRAM, {"chat", "--url", url_, "--api-key", "key", "--thinking"},
                 "Hello\n\n/reset\nAgain\n/quit\nNever\n");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const std::string reply = "[thought]\nhm\n[/thought]\nIt is [31m42[0m.\n";
  EXPECT_EQ(result.out, reply + reply);
  EXPECT_EQ(result.err, "");
  const std::string prompt = backend_.tokenizer->Decode(engine_->last_request().prompt, false);
  EXPECT_THAT(prompt, AllOf(HasSubstr("Again"), Not(HasSubstr("Hello")), Not(HasSubstr("42"))));
}

TEST_F(ChatTest, CtrlCCancelsAReplyAndLeavesAtThePrompt) {
  engine_->endless = true;
  Program program(LAPIDARY_PROGRAM, {"chat", "--url", url_, "--api-key", "key", "--thinking"},
                  true);
  ASSERT_TRUE(program.WaitFor("> ")) << program.so_far().out;
  program.Send("Hello\n");
  ASSERT_TRUE(program.WaitFor("\033[2mhm\033[0m")) << program.so_far().out;
  ASSERT_TRUE(program.WaitFor("It is ")) << program.so_far().out;
  program.Send("\x03");
  ASSERT_TRUE(program.WaitFor("(interrupted)")) << program.so_far().out;
  ASSERT_TRUE(program.WaitFor("> ")) << program.so_far().out;
  for (int i = 0; i < 100 && engine_->num_cancelled < 1; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(engine_->num_cancelled, 1);
  program.Send("\x03");
  const ProgramResult result = program.Finish();
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, Not(HasSubstr("\x1b[31m")));  // the reply's own escapes are left out
}

// The shipped model, in process.
TEST(ChatProgram, RemembersUntilReset) {
  const ProgramResult result = RunProgram(
      LAPIDARY_PROGRAM, {"chat", "--temperature", "0", "--max-tokens", "40"},
      "What is 12 + 30?\nMy name is Anna.\nWhat is my name?\n/reset\nWhat is my name?\n");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  std::vector<std::string> lines;
  std::istringstream replies(result.out);
  for (std::string line; std::getline(replies, line);) lines.push_back(line);
  ASSERT_EQ(lines.size(), 4u) << result.out;
  EXPECT_EQ(lines[0], "42");
  EXPECT_THAT(lines[2], HasSubstr("Anna"));
  EXPECT_THAT(lines[3], Not(HasSubstr("Anna")));
}

TEST(ChatProgram, AnUnansweredQuestionFailsAScript) {
  const ProgramResult result = RunProgram(LAPIDARY_PROGRAM, {"chat", "--max-model-len", "64"},
                                          std::string(400, 'x') + "\nHello\n");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("the context holds 64"));
  EXPECT_EQ(result.out, "");
}

}  // namespace
}  // namespace lapidary
