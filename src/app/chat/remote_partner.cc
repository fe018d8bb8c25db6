#include <fmt/core.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <optional>

#include "app/chat/chat_partner.h"
#include "app/chat/sse_reader.h"
#include "app/chat/url.h"

namespace lapidary {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::chrono::milliseconds kReadPoll{50};
constexpr size_t kMaxErrorBytes = 64 * 1024;

// One request on its own connection. Waits in short turns, so that Ctrl-C is noticed.
class HttpCall {
 public:
  HttpCall(const Url& url, const ChatPartner::Interrupted& interrupted)
      : url_(url), interrupted_(interrupted), socket_(context_) {
    parser_.body_limit(boost::none);
  }

  // Up to the reply's headers. Ok with stopped() when interrupted.
  Status Begin(http::verb verb, const std::string& target, const std::string& api_key,
               std::string body) {
    tcp::resolver resolver(context_);
    tcp::resolver::results_type found;
    resolver.async_resolve(url_.host_name(), url_.port, [&](const error_code& code, auto results) {
      code_ = code;
      found = std::move(results);
    });
    if (!Wait() || code_) return Failed("is not known");
    asio::async_connect(socket_, found,
                        [&](const error_code& code, const tcp::endpoint&) { code_ = code; });
    if (!Wait() || code_) return Failed("does not answer");
    http::request<http::string_body> request(verb, url_.path + target, 11);
    request.set(http::field::host, url_.authority());
    request.set(http::field::content_type, "application/json");
    if (!api_key.empty()) request.set(http::field::authorization, "Bearer " + api_key);
    request.body() = std::move(body);
    request.prepare_payload();
    http::async_write(socket_, request, [&](const error_code& code, size_t) { code_ = code; });
    if (!Wait() || code_) return Failed("closed the connection");
    http::async_read_header(socket_, buffer_, parser_,
                            [&](const error_code& code, size_t) { code_ = code; });
    if (!Wait() || code_) return Failed("sent no HTTP answer");
    return Ok{};
  }

  int status() const { return parser_.get().result_int(); }
  bool stopped() const { return stopped_; }

  // The body's next bytes; empty at its end, and when interrupted.
  Result<std::string> Read() {
    while (!parser_.is_done()) {
      http::async_read_some(socket_, buffer_, parser_,
                            [&](const error_code& code, size_t) { code_ = code; });
      if (!Wait()) return std::string();
      if (code_) return Failed("broke off the reply").error();
      if (!parser_.get().body().empty()) break;
    }
    return std::exchange(parser_.get().body(), {});
  }

  Result<std::string> ReadAll(size_t max_bytes) {
    std::string all;
    while (all.size() < max_bytes) {
      Result<std::string> piece = Read();
      if (!piece.ok()) return piece.error();
      if (piece.value().empty()) break;
      all += piece.value();
    }
    return all;
  }

 private:
  // Runs the pending operation to its end; false when interrupted.
  bool Wait() {
    context_.restart();
    while (!context_.stopped()) {
      context_.run_for(kReadPoll);
      if (context_.stopped() || !interrupted_()) continue;
      stopped_ = true;
      error_code ignored;
      socket_.close(ignored);
      context_.run();
      return false;
    }
    return true;
  }
  Status Failed(const char* what) const {
    if (stopped_) return Ok{};
    return Error{fmt::format("http://{} {}: {}", url_.authority(), what, code_.message()), "", ""};
  }

  const Url& url_;
  const ChatPartner::Interrupted& interrupted_;
  asio::io_context context_;
  tcp::socket socket_;
  boost::beast::flat_buffer buffer_;
  http::response_parser<http::string_body> parser_;
  error_code code_;
  bool stopped_ = false;
};

Error Refusal(int status, const std::string& body) {
  const Result<json::value> parsed = ParseJson(body, "the answer");
  std::string message = parsed.ok() ? ErrorMessage(parsed.value()) : "";
  if (message.empty()) message = "it is not what an OpenAI-compatible server answers";
  return Error{fmt::format("the server says {}: {}", status, message), "", ""};
}

class RemotePartner : public ChatPartner {
 public:
  RemotePartner(Url url, std::string api_key, std::string model)
      : url_(std::move(url)), api_key_(std::move(api_key)), model_(std::move(model)) {
    if (model_.empty()) model_ = FirstModel();
  }

  Status Stream(const json::object& body, const OnEvent& on_event,
                const Interrupted& interrupted) override {
    json::object whole = body;
    whole["model"] = model_;
    HttpCall call(url_, interrupted);
    Status begun =
        call.Begin(http::verb::post, "/v1/chat/completions", api_key_, json::serialize(whole));
    if (!begun.ok() || call.stopped()) return begun;
    if (call.status() != 200) {
      const Result<std::string> text = call.ReadAll(kMaxErrorBytes);
      return Refusal(call.status(), text.ok() ? text.value() : "");
    }
    SseReader reader;
    while (true) {
      const Result<std::string> piece = call.Read();
      if (!piece.ok()) return piece.error();
      if (piece.value().empty()) return Ok{};
      if (const Status given = GiveEvents(reader, piece.value(), on_event); !given.ok())
        return given;
    }
  }

 private:
  std::string FirstModel() const {
    const Interrupted never = [] { return false; };
    HttpCall call(url_, never);
    if (const Status begun = call.Begin(http::verb::get, "/v1/models", api_key_, ""); !begun.ok())
      throw StartupError(begun.error().message);
    const Result<std::string> text = call.ReadAll(size_t{1} << 20);
    if (!text.ok()) throw StartupError(text.error().message);
    if (call.status() != 200) throw StartupError(Refusal(call.status(), text.value()).message);
    const Result<json::value> models = ParseJson(text.value(), "/v1/models");
    boost::system::error_code code;
    const json::value* id = models.ok() ? models.value().find_pointer("/data/0/id", code) : nullptr;
    if (id == nullptr || !id->is_string())
      throw StartupError(
          fmt::format("http://{} lists no model; name one with --model", url_.authority()));
    return std::string(id->get_string());
  }

  Url url_;
  std::string api_key_, model_;
};

}  // namespace

std::unique_ptr<ChatPartner> MakeRemotePartner(const std::string& url, const std::string& api_key,
                                               const std::string& model) {
  return std::make_unique<RemotePartner>(ParseUrl("--url", url), api_key, model);
}

}  // namespace lapidary
