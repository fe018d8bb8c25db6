// Monitor: what dashboards, routers and benches read: metrics, load, and what the server is.
#ifndef LAPIDARY_SERVER_MONITOR_MONITOR_H_
#define LAPIDARY_SERVER_MONITOR_MONITOR_H_

#include <chrono>
#include <memory>
#include <mutex>
#include <string>

#include "io/json.h"
#include "server/api_options.h"
#include "server/monitor/http_metrics.h"
#include "server/monitor/request_metrics.h"
#include "server/token_engine.h"

namespace lapidary {

// True unless work waits and nothing has moved for 3 s; a slow step beats after every layer.
bool MakesProgress(const EngineStats& stats);

// Thread-safe.
class Monitor {
 public:
  explicit Monitor(const ApiOptions& options);
  const std::shared_ptr<RequestMetrics>& requests() const { return requests_; }
  const std::shared_ptr<HttpMetrics>& http() const { return http_; }

  // `engine` is null while the model loads.
  std::string MetricsPage(const TokenEngine* engine, int64_t ignored_fields);
  // The acceptance length counts from now on.
  void ResetAcceptance(const EngineStats& stats);
  // /server_info; `started_with` are flags and plan.
  json::object ServerInfo(const TokenEngine& engine, const json::object& started_with);
  json::object ModelInfo() const;
  json::object Loads(const TokenEngine& engine);  // /v1/loads

 private:
  // Rates between two looks at least a second apart.
  void Look(const EngineStats& stats);
  double AcceptLength(const EngineStats& stats) const;

  std::string name_, version_;
  std::shared_ptr<RequestMetrics> requests_ = std::make_shared<RequestMetrics>();
  std::shared_ptr<HttpMetrics> http_ = std::make_shared<HttpMetrics>();
  mutable std::mutex mutex_;  // guards all below
  std::chrono::steady_clock::time_point looked_{};
  int64_t looked_tokens_ = 0;
  double tokens_a_second_ = 0;
  int64_t bursts_at_reset_ = 0, accepted_at_reset_ = 0;
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_MONITOR_MONITOR_H_
