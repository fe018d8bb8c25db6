// The server over raw sockets. The engine is a script: it answers with the prompt's own tokens.
#include "server/api_server.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "tests/server/api_server_fixture.h"
#include "tests/support/rounds.h"

namespace lapidary {
namespace {

TEST_F(ApiServerTest, AnswersEachRoute) {
  EXPECT_EQ(StatusOf(Raw(Message("GET", "/health", ""))), 200);
  EXPECT_EQ(StatusOf(Raw(Message("GET", "/version", ""))), 200);
  EXPECT_EQ(StatusOf(Raw(Message("GET", "/v1/models/pebble", ""))), 200);
  EXPECT_EQ(StatusOf(Raw(Message("GET", "/v1/models/other", ""))), 404);
  EXPECT_EQ(StatusOf(Raw(Message("GET", "/nothing", ""))), 404);
  EXPECT_EQ(StatusOf(Raw(Message("GET", "/v1/completions", ""))), 405);
  const json::object tokens = BodyOf(Post("/tokenize", R"({"prompt":"Hello there"})"));
  const json::object text =
      BodyOf(Post("/detokenize", json::serialize(json::object{{"tokens", tokens.at("tokens")},
                                                              {"skip_special_tokens", true}})));
  EXPECT_EQ(text.at("text").as_string(), "Hello there");
}

TEST_F(ApiServerTest, CompletionStreamsWhatItAnswersAtOnce) {
  const std::string at_once =
      Post("/v1/completions", R"({"prompt":"Hello there, you","max_tokens":100,"n":2})");
  ASSERT_EQ(StatusOf(at_once), 200) << at_once;
  const json::array choices = BodyOf(at_once).at("choices").as_array();
  ASSERT_EQ(choices.size(), 2u);
  EXPECT_EQ(choices[1].at("text").as_string(), "Hello there, you");
  const std::string stream = Post(
      "/v1/completions",
      R"({"prompt":"Hello there, you","max_tokens":100,"stream":true,"stream_options":{"include_usage":true}})");
  std::string joined;
  bool usage = false;
  for (size_t at = stream.find("data: {"); at != std::string::npos;
       at = stream.find("data: {", at + 1)) {
    const json::object chunk =
        json::parse(stream.substr(at + 6, stream.find('\n', at) - at - 6)).as_object();
    usage |= chunk.contains("usage");
    for (const json::value& choice : chunk.at("choices").as_array())
      joined += std::string(choice.at("text").as_string());
  }
  EXPECT_EQ(joined, "Hello there, you");
  EXPECT_TRUE(usage);
  EXPECT_NE(stream.find("data: [DONE]\n\n"), std::string::npos);
}

TEST_F(ApiServerTest, StopStringEndsTheText) {
  const json::object reply = BodyOf(
      Post("/v1/completions", R"({"prompt":"Hello there, you","max_tokens":100,"stop":["ere"]})"));
  const json::value& choice = reply.at("choices").as_array()[0];
  EXPECT_EQ(choice.at("text").as_string(), "Hello th");
  EXPECT_EQ(choice.at("finish_reason").as_string(), "stop");
  EXPECT_EQ(choice.at("stop_reason").as_string(), "ere");
}

constexpr const char* kToolReply =
    "<|channel>thought\nhm\n<channel|>It is 42.<|tool_call>call:f{a:1,b:<|\"|>x "
    "y<|\"|>}<tool_call|>";
constexpr const char* kToolChat =
    R"({"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f",)"
    R"("parameters":{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}}}}}])";

TEST_F(ApiServerTest, ChatSeparatesThoughtContentAndCalls) {
  engine_->script = tokenizer_->Encode(kToolReply);
  const std::string reply = Post("/v1/chat/completions", std::string(kToolChat) + "}");
  ASSERT_EQ(StatusOf(reply), 200) << reply;
  const json::object choice = BodyOf(reply).at("choices").as_array()[0].as_object();
  const json::object& message = choice.at("message").as_object();
  EXPECT_EQ(message.at("content").as_string(), "It is 42.");
  EXPECT_EQ(message.at("reasoning").as_string(), "hm");
  EXPECT_EQ(message.at("reasoning_content").as_string(), "hm");
  const json::object& call = message.at("tool_calls").as_array()[0].as_object();
  EXPECT_EQ(call.at("id").as_string().size(), 5u + 24u);
  EXPECT_EQ(call.at("function").as_object().at("name").as_string(), "f");
  EXPECT_EQ(json::parse(call.at("function").as_object().at("arguments").as_string()),
            json::parse(R"({"a":1,"b":"x y"})"));
  EXPECT_EQ(choice.at("finish_reason").as_string(), "tool_calls");
}

TEST_F(ApiServerTest, ChatStreamsWhatItAnswersAtOnce) {
  engine_->script = tokenizer_->Encode(kToolReply);
  const std::string stream =
      Post("/v1/chat/completions", std::string(kToolChat) + R"(,"stream":true})");
  std::string content, reasoning, arguments, finish;
  int num_roles = 0, num_done = 0;
  for (size_t at = stream.find("data: "); at != std::string::npos;
       at = stream.find("data: ", at + 1)) {
    const std::string line = stream.substr(at + 6, stream.find('\n', at) - at - 6);
    if (line.starts_with("[DONE]")) {
      ++num_done;
      continue;
    }
    const json::value chunk = json::parse(line);
    const json::object& choice = chunk.at("choices").as_array()[0].as_object();
    EXPECT_FALSE(chunk.as_object().contains("usage"));
    const json::object& delta = choice.at("delta").as_object();
    num_roles += delta.contains("role") ? 1 : 0;
    if (delta.contains("content")) content += std::string(delta.at("content").as_string());
    if (delta.contains("reasoning")) reasoning += std::string(delta.at("reasoning").as_string());
    if (delta.contains("tool_calls"))
      for (const json::value& call : delta.at("tool_calls").as_array())
        arguments += std::string(call.at("function").at("arguments").as_string());
    if (choice.at("finish_reason").is_string())
      finish += std::string(choice.at("finish_reason").as_string());
  }
  EXPECT_EQ(content, "It is 42.");
  EXPECT_EQ(reasoning, "hm");
  EXPECT_EQ(json::parse(arguments), json::parse(R"({"a":1,"b":"x y"})"));
  EXPECT_EQ(finish, "tool_calls");
  EXPECT_EQ(num_roles, 1);
  EXPECT_EQ(num_done, 1);
}

TEST_F(ApiServerTest, ChatRefusesByPath) {
  const auto param = [&](const std::string& body) {
    const std::string reply = Post("/v1/chat/completions", body);
    EXPECT_EQ(StatusOf(reply), 400) << reply;
    const json::object error = BodyOf(reply).at("error").as_object();
    return error.at("param").is_string() ? std::string(error.at("param").as_string()) : "";
  };
  EXPECT_EQ(param("{}"), "messages");
  EXPECT_EQ(param(R"({"messages":[{"role":"king","content":"x"}]})"), "messages[0].role");
  EXPECT_EQ(param(R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})"),
            "messages[0].content[0]");
  EXPECT_EQ(param(R"({"messages":[{"role":"user","content":"x"}],"tool_choice":"required"})"),
            "tool_choice");
  EXPECT_EQ(
      param(
          R"({"messages":[{"role":"user","content":"x"}],"chat_template_kwargs":{"tokenize":true}})"),
      "chat_template_kwargs.tokenize");
  EXPECT_EQ(
      param(
          R"({"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"[1]"}}]}]})"),
      "messages[0].tool_calls[0].function.arguments");
}

TEST_F(ApiServerTest, ErrorsNameTheSpellingOfTheRequest) {
  const json::object error =
      BodyOf(Post("/v1/completions", R"({"prompt":"a","max_tokens":"many"})"))
          .at("error")
          .as_object();
  EXPECT_EQ(error.at("param").as_string(), "max_tokens");
  EXPECT_TRUE(error.at("message").as_string().starts_with("'max_tokens' must"));
}

TEST_F(ApiServerTest, HttpLimits) {
  EXPECT_EQ(StatusOf(Raw("GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")), 408);
  EXPECT_EQ(StatusOf(Raw(Message("GET", "/" + std::string(9000, 'a'), ""))), 414);
  EXPECT_EQ(StatusOf(Raw(Message("GET", "/", "", "X: " + std::string(17000, 'a') + "\r\n"))), 431);
  EXPECT_EQ(StatusOf(Raw("POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
                         "20971521\r\n\r\n")),
            413);
  EXPECT_EQ(StatusOf(Raw(Message("POST", "/tokenize", "{}", "Content-Encoding: gzip\r\n"))), 415);
  EXPECT_EQ(
      StatusOf(Raw("GET /version HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")),
      403);
  EXPECT_EQ(StatusOf(Raw(Message("GET", "/version", "", "Origin: http://evil.example\r\n"))), 403);
}

TEST_F(ApiServerTest, DisconnectCancels) {
  for (const char* stream : {"true", "false"}) {
    const int before = engine_->num_cancelled;
    {
      tcp::socket socket = Connect();
      boost::asio::write(
          socket, boost::asio::buffer(Message(
                      "POST", "/v1/completions",
                      std::string(R"({"prompt":"a","ignore_eos":true,"stream":)") + stream + "}")));
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      EXPECT_EQ(engine_->num_cancelled, before);
    }
    for (int i = 0; i < 100 && engine_->num_cancelled == before; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_EQ(engine_->num_cancelled, before + 1);
  }
}

// Keeps what it is asked and answers nothing, not even a cancel.
class DeafEngine : public ScriptedEngine {
 public:
  using ScriptedEngine::ScriptedEngine;
  Status Submit(Request, TokenSink sink) override {
    const std::lock_guard lock(mutex_);
    sinks_.push_back(std::move(sink));
    return Ok{};
  }
  void Cancel(uint64_t) override {}
  size_t num_sinks() {
    const std::lock_guard lock(mutex_);
    return sinks_.size();
  }

 private:
  std::mutex mutex_;
  std::vector<TokenSink> sinks_;  // guarded by mutex_
};

// Its sinks hold replies and their connections; none of these may hold the engine.
TEST_F(ApiServerTest, TheEngineEndsWithTheServerWhateverRuns) {
  auto engine = std::make_shared<DeafEngine>(tokenizer_->vocab_size());
  DeafEngine& deaf = *engine;
  const std::weak_ptr<DeafEngine> alive = engine;
  ApiOptions options;
  options.port = 0;
  auto server = std::make_unique<ApiServer>(options);
  Backend backend;
  backend.tokenizer = tokenizer_;
  server->Attach(std::move(engine), std::move(backend));
  std::vector<tcp::socket> clients;
  for (const std::string& message :
       {Message("POST", "/v1/completions", R"({"prompt":"a"})"),
        Message("POST", "/v1/chat/completions",
                R"({"messages":[{"role":"user","content":"a"}],"stream":true})"),
        Message("GET", "/health_generate", "")}) {
    clients.push_back(Connect(server->port()));
    boost::asio::write(clients.back(), boost::asio::buffer(message));
  }
  while (deaf.num_sinks() < clients.size())
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  server.reset();
  EXPECT_TRUE(alive.expired());
}

TEST_F(ApiServerTest, SplitWritesAnswerAlike) {
  const std::string message = Message("POST", "/detokenize", R"({"tokens":[5,6]})");
  const std::string whole = Raw(message);
  ASSERT_EQ(StatusOf(whole), 200);
  for (size_t cut = 1; cut < message.size(); cut += 3) {
    tcp::socket socket = Connect();
    socket.set_option(tcp::no_delay(true));
    boost::asio::write(socket, boost::asio::buffer(message.substr(0, cut)));
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    boost::asio::write(socket, boost::asio::buffer(message.substr(cut)));
    ASSERT_EQ(ReadAll(socket), whole) << cut;
  }
}

TEST_F(ApiServerTest, MutatedRequestsLeaveItHealthy) {
  const std::string message = Message("POST", "/v1/completions", R"({"prompt":"abc","top_p":0.5})");
  std::mt19937 random(7);
  const int num_rounds = Rounds(2000);
  for (int round = 0; round < num_rounds; ++round) {
    std::string bytes = message;
    for (int i = 0; i < 3; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    tcp::socket socket = Connect();
    boost::system::error_code code;
    boost::asio::write(socket, boost::asio::buffer(bytes), code);
    socket.shutdown(tcp::socket::shutdown_send, code);
    const std::string reply = ReadAll(socket);
    ASSERT_NE(StatusOf(reply), 500);
  }
  EXPECT_EQ(StatusOf(Raw(Message("GET", "/health", ""))), 200);
}

}  // namespace
}  // namespace lapidary
