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
  int health_port = -1;  // a second listener for the health routes, with its own thread; -1: none
  int num_threads = 2;
  HttpLimits limits;
  std::vector<std::string> served_names = {"pebble"};
  bool serves_any_name = false;
  std::vector<std::string> api_keys;
  std::string version = "0";
};

class ApiServer {
 public:
  explicit ApiServer(const ApiOptions& options);  // throws StartupError, as HttpServer
  int port() const { return http_->port(); }
  void Attach(std::shared_ptr<const Backend> backend);  // ready from now on
  void SetState(ServerState state) { state_ = state; }
  // While loading: what /health tells.
  void SetProgress(uint64_t done_bytes, uint64_t total_bytes);
  int health_port() const { return health_ ? health_->port() : -1; }
  int num_live() const { return *num_live_; }
  int64_t num_ignored_fields() const { return num_ignored_fields_; }

 private:
  using ExchangePtr = std::shared_ptr<Exchange>;
  void Handle(const HttpRequest& request, const ExchangePtr& exchange);
  bool Admitted(const HttpRequest& request, const ExchangePtr& exchange) const;
  static std::string_view KeyOf(const HttpRequest& request);
  bool HasKey(const HttpRequest& request) const;
  std::unique_ptr<HttpServer> Listen(int port, int num_threads, bool health_only);
  HttpResponse Health(bool liveness) const;
  HttpResponse Models(const std::string& path) const;
  ReplyForm NewForm(const json::object& fields, const HttpRequest& request,
                    const char* prefix) const;
  template <typename Reply>
  std::shared_ptr<Reply> Live(Reply* reply);
  void Completions(const json::object& body, const HttpRequest& request,
                   const ExchangePtr& exchange);
  void NativeGenerate(const json::object& body, const HttpRequest& request,
                      const ExchangePtr& exchange);
  void ChatCompletions(const json::object& body, const HttpRequest& request,
                       const ExchangePtr& exchange);
  HttpResponse TokenizeRoute(const std::string& path, const json::object& body);
  Result<json::object> Checked(const json::object& body, unsigned endpoint);
  std::shared_ptr<const Backend> backend() const;

  ApiOptions options_;
  std::string secret_;  // drawn at start: nobody can guess another key's cache salt
  bool is_loopback_;
  int64_t created_;
  std::atomic<ServerState> state_{ServerState::kLoading};
  std::atomic<int64_t> num_ignored_fields_{0};
  std::shared_ptr<std::atomic<int>> num_live_ = std::make_shared<std::atomic<int>>(0);
  mutable std::mutex mutex_;
  std::shared_ptr<const Backend> backend_;  // guarded by mutex_
  std::atomic<uint64_t> loaded_bytes_{0}, total_bytes_{0};
  std::unique_ptr<HttpServer> health_, http_;  // last: their threads use the rest
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_API_SERVER_H_
