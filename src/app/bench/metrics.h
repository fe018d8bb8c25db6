// Metrics: what `vllm bench serve` and `sglang.bench_serving` report, by their definitions, from
// the moments at which each request's messages came.
//
//   TTFT  sent to the first message with tokens
//   ITL   between two messages of a request; one with several tokens counts once
//   E2EL  sent to the last message
//   TPOT  (E2EL - TTFT) / (output tokens - 1), of requests with at least two
//
// Only requests that succeeded count. Times are seconds on one clock, results milliseconds.
#ifndef LAPIDARY_APP_BENCH_METRICS_H_
#define LAPIDARY_APP_BENCH_METRICS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace lapidary {

struct RequestTrace {
  int num_prompt = 0, num_output = 0;
  double sent_s = 0;
  std::vector<double> arrivals_s;  // of messages with tokens, in order
  std::string error;               // empty: succeeded
  bool ok() const { return error.empty() && !arrivals_s.empty(); }
  double ttft_s() const { return arrivals_s.front() - sent_s; }
  double e2el_s() const { return arrivals_s.back() - sent_s; }
};

// Percentiles between two values are interpolated; std is of the population.
struct Distribution {
  size_t count = 0;
  double mean = 0, std = 0, min = 0, median = 0, p90 = 0, p99 = 0, max = 0;
};
Distribution Describe(std::vector<double> values);

struct LoadMetrics {
  int completed = 0, failed = 0;
  int64_t input_tokens = 0, output_tokens = 0;
  double duration_s = 0;        // before the first request is made until the last one is over
  double decode_tok_per_s = 0;  // tokens after each first one, over the time they took
  Distribution ttft_ms, tpot_ms, itl_ms, e2el_ms;
};
LoadMetrics Measure(const std::vector<RequestTrace>& traces, double duration_s);
// Requests between their first and last message, while there was one.
double MeanDecoding(const std::vector<RequestTrace>& traces);
// The most that were so at once; at least one that succeeded was.
int64_t MostDecoding(const std::vector<RequestTrace>& traces);

// A measured number: its name in records, the two clients' own where they have one, and for people.
struct Figure {
  std::string key, title;
  double value = 0;
};

// p99 of fewer than 100 values says nothing; min and max are given in its place.
std::vector<Figure> FiguresOf(const LoadMetrics& metrics);

// One figure over several runs. Runs without it (a p99 of too few values) are left out.
struct Spread {
  std::string key, title;
  double median = 0, min = 0, max = 0;
  std::vector<double> runs;
};
std::vector<Spread> SpreadsOf(const std::vector<std::vector<Figure>>& runs);

}  // namespace lapidary

#endif  // LAPIDARY_APP_BENCH_METRICS_H_
