#include "app/bench/http_load.h"

#include <fmt/core.h>
#include <boost/json/value_from.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <cmath>
#include <random>
#include <utility>

#include "app/chat/sse_reader.h"
#include "io/json.h"

namespace lapidary {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::use_awaitable;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr size_t kMaxBodyBytes = size_t{64} << 20;  // of what is no stream
constexpr std::chrono::milliseconds kProgress{100};

http::request<http::string_body> MakeHttp(const LoadTarget& target, http::verb verb,
                                          const std::string& path) {
  http::request<http::string_body> request(verb, target.url.path + path, 11);
  request.set(http::field::host, target.url.authority());
  request.set(http::field::content_type, "application/json");
  if (!target.api_key.empty()) request.set(http::field::authorization, "Bearer " + target.api_key);
  return request;
}

std::string BodyOf(const LoadTarget& target, const BenchRequest& request) {
  const SamplingParams& sampling = request.sampling;
  json::object body = {{"model", target.model},
                       {"prompt", json::value_from(request.prompt)},
                       {"max_tokens", request.max_tokens},
                       {"temperature", sampling.temperature},
                       {"top_p", sampling.top_p},
                       {"top_k", sampling.top_k == 0 ? -1 : sampling.top_k},
                       {"seed", sampling.seed},
                       {"ignore_eos", sampling.ignore_eos},
                       {"stream", true},
                       {"stream_options", {{"include_usage", true}}}};
  return json::serialize(body);
}

// One event of a completion's stream.
void TakeEvent(const std::string& data, double now_s, RequestTrace& trace) {
  if (data == "[DONE]") return;
  const Result<json::value> event = ParseJson(data, "an event of the reply");
  if (!event.ok() || !event.value().is_object()) {
    trace.error = event.ok() ? "an event of the reply is no object" : event.error().message;
    return;
  }
  if (std::string message = ErrorMessage(event.value()); !message.empty())
    trace.error = std::move(message);
  error_code code;
  if (event.value().find_pointer("/choices/0", code) != nullptr) trace.arrivals_s.push_back(now_s);
  const json::value* tokens = event.value().find_pointer("/usage/completion_tokens", code);
  if (tokens != nullptr && tokens->is_int64())
    trace.num_output = static_cast<int>(tokens->get_int64());
}

// A request from its connection to its last byte. Throws system_error.
class LoadExchange {
 public:
  LoadExchange(asio::any_io_executor executor, const LoadTarget& target,
               const tcp::resolver::results_type& endpoints)
      : stream_(executor), target_(target), endpoints_(endpoints) {
    parser_.body_limit(boost::none);
  }
  // Up to the reply's headers.
  asio::awaitable<void> Begin(const http::request<http::string_body>& request) {
    Extend();
    co_await stream_.async_connect(endpoints_, use_awaitable);
    error_code ignored;
    stream_.socket().set_option(tcp::no_delay(true), ignored);
    co_await http::async_write(stream_, request, use_awaitable);
    co_await http::async_read_header(stream_, buffer_, parser_, use_awaitable);
  }
  int status() const { return parser_.get().result_int(); }
  bool is_done() const { return parser_.is_done(); }
  // The body's next bytes, maybe none.
  asio::awaitable<std::string> Read() {
    Extend();
    co_await http::async_read_some(stream_, buffer_, parser_, use_awaitable);
    co_return std::exchange(parser_.get().body(), {});
  }
  asio::awaitable<std::string> ReadAll() {
    std::string all;
    while (!is_done() && all.size() < kMaxBodyBytes) all += co_await Read();
    co_return all;
  }

 private:
  void Extend() { stream_.expires_after(std::chrono::seconds(target_.timeout_s)); }
  beast::tcp_stream stream_;
  const LoadTarget& target_;
  const tcp::resolver::results_type& endpoints_;
  beast::flat_buffer buffer_;
  http::response_parser<http::string_body> parser_;
};

tcp::resolver::results_type Resolve(asio::io_context& context, const LoadTarget& target) {
  error_code code;
  auto endpoints = tcp::resolver(context).resolve(target.url.host_name(), target.url.port, code);
  if (code)
    throw StartupError(
        fmt::format("http://{} is not known: {}", target.url.authority(), code.message()));
  return endpoints;
}

class Load {
 public:
  Load(const LoadTarget& target, const LoadShape& shape, const std::vector<BenchRequest>& requests,
       ProgressLine& progress)
      : target_(target),
        shape_(shape),
        progress_(progress),
        endpoints_(Resolve(context_, target)),
        freed_(context_) {
    run_.traces.resize(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      run_.traces[i].num_prompt = static_cast<int>(requests[i].prompt.size());
      auto http = MakeHttp(target, http::verb::post, "/v1/completions");
      http.body() = BodyOf(target, requests[i]);
      http.prepare_payload();
      https_.push_back(std::move(http));
    }
  }

  LoadRun Run() {
    start_ = Clock::now();
    asio::co_spawn(context_, Dispatch(), Rethrow);
    asio::co_spawn(context_, ShowProgress(), Rethrow);
    context_.run();
    return std::move(run_);
  }

 private:
  static void Rethrow(const std::exception_ptr& failure) {
    if (failure) std::rethrow_exception(failure);
  }
  double Now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  asio::awaitable<void> Dispatch() {
    std::mt19937_64 bits(shape_.seed);
    asio::steady_timer arrival(context_);
    double at_s = 0;
    for (size_t i = 0; i < https_.size(); ++i) {
      if (std::isfinite(shape_.requests_per_s)) {
        const double uniform = static_cast<double>(bits() >> 11) * 0x1p-53;
        if (i > 0) at_s -= std::log1p(-uniform) / shape_.requests_per_s;
        arrival.expires_at(start_ + std::chrono::duration_cast<Clock::duration>(
                                        std::chrono::duration<double>(at_s)));
        co_await arrival.async_wait(use_awaitable);
      }
      while (shape_.max_concurrency > 0 && num_open_ >= shape_.max_concurrency) {
        freed_.expires_at(Clock::time_point::max());  // cancelled by whoever ends
        error_code cancelled;
        co_await freed_.async_wait(asio::redirect_error(use_awaitable, cancelled));
      }
      ++num_open_;
      asio::co_spawn(context_, Ask(i),
                     [this, i](const std::exception_ptr& failure) { End(i, failure); });
    }
  }

  asio::awaitable<void> Ask(size_t index) {
    RequestTrace& trace = run_.traces[index];
    LoadExchange exchange(co_await asio::this_coro::executor, target_, endpoints_);
    trace.sent_s = Now();
    co_await exchange.Begin(https_[index]);
    if (exchange.status() != 200) {
      const std::string text = co_await exchange.ReadAll();
      const Result<json::value> body = ParseJson(text, "the answer");
      trace.error = fmt::format("the server says {}: {}", exchange.status(),
                                body.ok() ? ErrorMessage(body.value()) : "");
      co_return;
    }
    SseReader reader;
    while (!exchange.is_done()) {
      const std::string bytes = co_await exchange.Read();
      const double now_s = Now();
      const size_t before = trace.arrivals_s.size();
      for (const std::string& data : reader.Push(bytes)) TakeEvent(data, now_s, trace);
      num_messages_ += static_cast<int64_t>(trace.arrivals_s.size() - before);
    }
    if (!trace.error.empty()) co_return;
    if (trace.arrivals_s.empty()) trace.error = "the reply has no choices";
    if (trace.num_output == 0) trace.error = "the reply has no usage: tokens cannot be counted";
  }

  void End(size_t index, const std::exception_ptr& failure) {
    run_.duration_s = Now();
    ++num_done_;
    --num_open_;
    freed_.cancel();
    try {
      Rethrow(failure);
    } catch (const std::exception& error) {
      run_.traces[index].error = error.what();
    }
  }

  asio::awaitable<void> ShowProgress() {
    asio::steady_timer timer(context_);
    while (num_done_ < https_.size()) {
      progress_.Show(num_done_, num_messages_);
      timer.expires_after(kProgress);
      co_await timer.async_wait(use_awaitable);
    }
  }

  const LoadTarget& target_;
  const LoadShape& shape_;
  ProgressLine& progress_;
  asio::io_context context_;
  const tcp::resolver::results_type endpoints_;
  asio::steady_timer freed_;
  std::vector<http::request<http::string_body>> https_;
  Clock::time_point start_{};
  size_t num_open_ = 0, num_done_ = 0;
  int64_t num_messages_ = 0;
  LoadRun run_;
};

asio::awaitable<void> Get(const LoadTarget& target, const tcp::resolver::results_type& endpoints,
                          const std::string& path, Result<std::string>& answer) {
  LoadExchange exchange(co_await asio::this_coro::executor, target, endpoints);
  co_await exchange.Begin(MakeHttp(target, http::verb::get, path));
  std::string body = co_await exchange.ReadAll();
  if (exchange.status() == 200)
    answer = std::move(body);
  else
    answer = Error{fmt::format("the server says {} to {}", exchange.status(), path), "", ""};
}

}  // namespace

LoadRun RunLoad(const LoadTarget& target, const LoadShape& shape,
                const std::vector<BenchRequest>& requests, ProgressLine& progress) {
  return Load(target, shape, requests, progress).Run();
}

Result<std::string> HttpGet(const LoadTarget& target, const std::string& path) {
  asio::io_context context;
  const auto endpoints = Resolve(context, target);
  Result<std::string> answer = std::string();
  asio::co_spawn(
      context, Get(target, endpoints, path, answer), [&](const std::exception_ptr& failure) {
        try {
          if (failure) std::rethrow_exception(failure);
        } catch (const std::exception& error) {
          answer = Error{
              fmt::format("http://{} does not answer: {}", target.url.authority(), error.what()),
              "", ""};
        }
      });
  context.run();
  return answer;
}

}  // namespace lapidary
