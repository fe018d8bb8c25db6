// RequestMetrics: what requests were like, counted as their events pass. Thread-safe; an
// observation takes a lock for a few instructions.
#ifndef LAPIDARY_SERVER_MONITOR_REQUEST_METRICS_H_
#define LAPIDARY_SERVER_MONITOR_REQUEST_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/histogram.h>

#include <array>
#include <map>
#include <mutex>
#include <string>

#include "engine/request.h"
#include "server/monitor/metrics_text.h"
#include "text/reply_parser.h"

namespace lapidary {

// Buckets as vLLM has them, so that quantiles of both line up.
struct RequestMetrics {
  RequestMetrics();

  // A choice is over. `times` are its last ones.
  void Finished(FinishReason reason, const RequestTimes& times, int num_tokens);
  void Refused(const std::string& reason);
  void Slipped(const SlipCounts& slips);
  void WriteTo(MetricsText& page) const;

  prometheus::Histogram time_to_first_token, inter_token, request_token_time;
  prometheus::Histogram e2e, queue, prefill, decode, inference;
  prometheus::Histogram prompt_tokens, computed_tokens, generated_tokens, max_tokens, num_choices;
  prometheus::Counter num_requests;

 private:
  void WriteLatencies(MetricsText& page) const;
  void WriteShapes(MetricsText& page) const;

  std::array<prometheus::Counter, 5> finished_;  // by reason
  std::array<prometheus::Counter, kSlipNames.size()> slips_;
  mutable std::mutex mutex_;
  std::map<std::string, double> refused_;  // guarded by mutex_
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_MONITOR_REQUEST_METRICS_H_
