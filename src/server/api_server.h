// ApiServer: the routes. Listens from the start, answers 503 until a backend is attached.
#ifndef LAPIDARY_SERVER_API_SERVER_H_
#define LAPIDARY_SERVER_API_SERVER_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "server/http/http_server.h"
#include "server/openai/completion.h"

namespace lapidary {

enum class ServerState : uint8_t { kLoading, kReady, kDraining, kFailing };

struct ApiOptions {
  std::string host = "127.0.0.1";
  int port = 8000;
  int num_threads = 2;
  HttpLimits limits;
  std::vector<std::string> served_names = {"pebble"};
  std::vector<std::string> api_keys;
  std::string version = "0";
};

class ApiServer {
 public:
  explicit ApiServer(const ApiOptions& options);  // throws StartupError, as HttpServer
  int port() const { return http_->port(); }
  void Attach(std::shared_ptr<const Backend> backend);  // ready from now on
  void SetState(ServerState state) { state_ = state; }
  int num_live() const { return *num_live_; }
  int64_t num_ignored_fields() const { return num_ignored_fields_; }

 private:
  using ExchangePtr = std::shared_ptr<Exchange>;
  void Handle(const HttpRequest& request, const ExchangePtr& exchange);
  bool Admitted(const HttpRequest& request, const ExchangePtr& exchange) const;
  bool HasKey(const HttpRequest& request) const;
  HttpResponse Health(bool liveness) const;
  HttpResponse Models(const std::string& path) const;
  ReplyForm NewForm(const json::object& fields, const char* prefix) const;
  template <typename Reply>
  std::shared_ptr<Reply> Live(Reply* reply);
  void Completions(const json::object& body, const ExchangePtr& exchange);
  void ChatCompletions(const json::object& body, const ExchangePtr& exchange);
  HttpResponse Tokenize(const json::object& body);
  HttpResponse Detokenize(const json::object& body);
  Result<json::object> Checked(const json::object& body, unsigned endpoint);
  std::shared_ptr<const Backend> backend() const;

  ApiOptions options_;
  bool is_loopback_;
  int64_t created_;
  std::atomic<ServerState> state_{ServerState::kLoading};
  std::atomic<int64_t> num_ignored_fields_{0};
  std::shared_ptr<std::atomic<int>> num_live_ = std::make_shared<std::atomic<int>>(0);
  mutable std::mutex mutex_;
  std::shared_ptr<const Backend> backend_;  // guarded by mutex_
  std::unique_ptr<HttpServer> http_;        // last: its threads use the rest
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_API_SERVER_H_
