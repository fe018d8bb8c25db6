// ApiServer: the routes. Listens from the start, answers 503 until a backend is attached.
#ifndef LAPIDARY_SERVER_API_SERVER_H_
#define LAPIDARY_SERVER_API_SERVER_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "server/access.h"
#include "server/admin.h"
#include "server/api_options.h"
#include "server/live_requests.h"
#include "server/monitor/monitor.h"
#include "server/openai/completion.h"
#include "server/profiler.h"

namespace lapidary {

enum class ServerState : uint8_t { kLoading, kReady, kDraining, kFailing };

class ApiServer {
 public:
  explicit ApiServer(const ApiOptions& options);  // throws StartupError, as HttpServer
  ~ApiServer();
  ApiServer(const ApiServer&) = delete;
  ApiServer& operator=(const ApiServer&) = delete;
  int port() const { return http_->port(); }
  // Once; ready from now on. The engine ends with the server, unless somebody else has a share in
  // it.
  void Attach(std::shared_ptr<TokenEngine> engine, Backend backend);
  void SetState(ServerState state) { state_ = state; }
  // The process is about to end: probes hear of it, new requests are refused, running ones end with
  // an error. Returns when their clients were written to, within a second.
  void Fail();
  // While loading: what /health tells.
  void SetProgress(uint64_t done_bytes, uint64_t total_bytes);
  int health_port() const { return health_ ? health_->port() : -1; }
  int num_live() const { return live_->size(); }
  int64_t num_ignored_fields() const { return num_ignored_fields_; }

 private:
  using ExchangePtr = std::shared_ptr<Exchange>;
  struct Route;
  static const Route kRoutes[];
  static const Route* FindRoute(const std::string& path);

  std::unique_ptr<HttpServer> Listen(int port, int num_threads, bool health_only);
  void Handle(const HttpRequest& request, const ExchangePtr& exchange);
  void Serve(const Route& route, const HttpRequest& request, const ExchangePtr& exchange);
  std::shared_ptr<const Backend> backend() const;

  // The routes. Those that generate or tokenize are given the body's object.
  void Health(const HttpRequest& request, const ExchangePtr& exchange);
  void HealthGenerate(const HttpRequest& request, const ExchangePtr& exchange);
  void Models(const HttpRequest& request, const ExchangePtr& exchange);
  void Version(const HttpRequest& request, const ExchangePtr& exchange);
  void Metrics(const HttpRequest& request, const ExchangePtr& exchange);
  void Info(const HttpRequest& request, const ExchangePtr& exchange);
  void Load(const HttpRequest& request, const ExchangePtr& exchange);
  void FlushCache(const HttpRequest& request, const ExchangePtr& exchange);
  void Profile(const HttpRequest& request, const ExchangePtr& exchange);
  void AbortRequest(const HttpRequest& request, const ExchangePtr& exchange);
  void Completions(const HttpRequest& request, const ExchangePtr& exchange);
  void ChatCompletions(const HttpRequest& request, const ExchangePtr& exchange);
  void NativeGenerate(const HttpRequest& request, const ExchangePtr& exchange);
  void TokenizeRoute(const HttpRequest& request, const ExchangePtr& exchange);

  HttpResponse HealthOf(bool liveness) const;
  Result<json::object> Checked(const HttpRequest& request, unsigned endpoint);
  // Starts the reply to checked requests, unless its id will not do.
  void Begin(const ReplyForm& form, const ExchangePtr& exchange, std::unique_ptr<Reply> made,
             std::vector<Request> requests);
  ReplyForm NewForm(const json::object& fields, const HttpRequest& request,
                    const char* prefix) const;

  ApiOptions options_;
  Access access_;
  Monitor monitor_;
  int64_t created_;
  std::atomic<ServerState> state_{ServerState::kLoading};
  std::atomic<int64_t> num_ignored_fields_{0};
  std::shared_ptr<LiveRequests> live_ = std::make_shared<LiveRequests>();
  mutable std::mutex mutex_;
  std::unique_ptr<TokenEngine> engine_;     // of backend_
  std::shared_ptr<const Backend> backend_;  // guarded by mutex_
  std::atomic<uint64_t> loaded_bytes_{0}, total_bytes_{0};
  std::unique_ptr<Admin> admin_ = std::make_unique<Admin>();
  std::unique_ptr<Profiler> profiler_;
  std::unique_ptr<HttpServer> health_, http_;  // last: their threads use the rest
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_API_SERVER_H_
