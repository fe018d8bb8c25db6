// HttpLoad: requests to an OpenAI-compatible server over HTTP, streamed, each on a connection of
// its own, all from one thread.
#ifndef LAPIDARY_APP_BENCH_HTTP_LOAD_H_
#define LAPIDARY_APP_BENCH_HTTP_LOAD_H_

#include <limits>
#include <string>
#include <vector>

#include "app/bench/metrics.h"
#include "app/bench/progress.h"
#include "app/bench/workload.h"
#include "app/chat/url.h"
#include "base/result.h"

namespace lapidary {

struct LoadTarget {
  Url url;
  std::string api_key, model;
  int timeout_s = 600;  // without a byte; the request has failed then
};

struct LoadShape {
  // Arrivals of a Poisson process; infinite: all at once.
  double requests_per_s = std::numeric_limits<double>::infinity();
  size_t max_concurrency = 0;  // requests that the server sees at a time; 0: any
  uint64_t seed = 1;           // of the arrivals
};

struct LoadRun {
  std::vector<RequestTrace> traces;  // times from the run's begin
  double duration_s = 0;
};

// POST /v1/completions with token ids. A request's clock starts before its connection is made; a
// message counts when it has choices, output tokens are those of `usage`.
LoadRun RunLoad(const LoadTarget& target, const LoadShape& shape,
                const std::vector<BenchRequest>& requests, ProgressLine& progress);

// The body of a 200.
Result<std::string> HttpGet(const LoadTarget& target, const std::string& path);

}  // namespace lapidary

#endif  // LAPIDARY_APP_BENCH_HTTP_LOAD_H_
