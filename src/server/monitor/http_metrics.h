// HttpMetrics: answers by route, method and status. Thread-safe.
#ifndef LAPIDARY_SERVER_MONITOR_HTTP_METRICS_H_
#define LAPIDARY_SERVER_MONITOR_HTTP_METRICS_H_

#include <prometheus/histogram.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>

#include "server/http/exchange.h"
#include "server/monitor/metrics_text.h"

namespace lapidary {

class HttpMetrics : public std::enable_shared_from_this<HttpMetrics> {
 public:
  void Answered(const std::string& handler, const std::string& method, int status, double seconds);
  void WriteTo(MetricsText& page) const;
  // The exchange, with its answer counted; a client that leaves before its end counts as 499.
  // `handler` is a route, not what the client sent.
  std::shared_ptr<Exchange> Metered(std::shared_ptr<Exchange> exchange, std::string handler,
                                    std::string method);

 private:
  prometheus::Histogram duration_{{.01, .05, .1, .5, 1, 5, 10, 60}};
  mutable std::mutex mutex_;
  std::map<std::tuple<std::string, std::string, int>, double> answers_;  // guarded by mutex_
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_MONITOR_HTTP_METRICS_H_
