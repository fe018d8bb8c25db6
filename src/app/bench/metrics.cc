#include "app/bench/metrics.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace lapidary {
namespace {

constexpr size_t kFewestForP99 = 100;

double Percentile(const std::vector<double>& sorted, double percent) {
  const double rank = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(rank);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (rank - static_cast<double>(low));
}

void AddFigures(const std::string& key, const std::string& title, const Distribution& values,
                std::vector<Figure>& figures) {
  if (values.count == 0) return;
  figures.push_back({fmt::format("mean_{}_ms", key), title + " mean ms", values.mean});
  figures.push_back({fmt::format("median_{}_ms", key), title + " median ms", values.median});
  if (values.count >= kFewestForP99) {
    figures.push_back({fmt::format("p99_{}_ms", key), title + " p99 ms", values.p99});
    return;
  }
  figures.push_back({fmt::format("min_{}_ms", key), title + " min ms", values.min});
  figures.push_back({fmt::format("max_{}_ms", key), title + " max ms", values.max});
}

// When how many more or fewer requests decode, in order; who ends at a moment does so before
// another begins.
std::vector<std::pair<double, int>> DecodingChanges(const std::vector<RequestTrace>& traces) {
  std::vector<std::pair<double, int>> changes;
  for (const RequestTrace& trace : traces) {
    if (!trace.ok() || trace.num_output < 2) continue;
    changes.emplace_back(trace.arrivals_s.front(), 1);
    changes.emplace_back(trace.arrivals_s.back(), -1);
  }
  std::sort(changes.begin(), changes.end());
  return changes;
}

}  // namespace

Distribution Describe(std::vector<double> values) {
  Distribution all;
  all.count = values.size();
  if (values.empty()) return all;
  std::sort(values.begin(), values.end());
  const auto count = static_cast<double>(values.size());
  all.mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (const double value : values) squares += (value - all.mean) * (value - all.mean);
  all.std = std::sqrt(squares / count);
  all.min = values.front();
  all.median = Percentile(values, 50);
  all.p90 = Percentile(values, 90);
  all.p99 = Percentile(values, 99);
  all.max = values.back();
  return all;
}

LoadMetrics Measure(const std::vector<RequestTrace>& traces, double duration_s) {
  LoadMetrics metrics;
  metrics.duration_s = duration_s;
  std::vector<double> ttft, tpot, itl, e2el;
  double decode_tokens = 0, decode_s = 0;
  for (const RequestTrace& trace : traces) {
    if (!trace.ok()) {
      ++metrics.failed;
      continue;
    }
    ++metrics.completed;
    metrics.input_tokens += trace.num_prompt;
    metrics.output_tokens += trace.num_output;
    ttft.push_back(1e3 * trace.ttft_s());
    e2el.push_back(1e3 * trace.e2el_s());
    for (size_t i = 1; i < trace.arrivals_s.size(); ++i)
      itl.push_back(1e3 * (trace.arrivals_s[i] - trace.arrivals_s[i - 1]));
    if (trace.num_output < 2) continue;
    const double spent = trace.e2el_s() - trace.ttft_s();
    tpot.push_back(1e3 * spent / (trace.num_output - 1));
    decode_tokens += trace.num_output - 1;
    decode_s += spent;
  }
  metrics.decode_tok_per_s = decode_s > 0 ? decode_tokens / decode_s : 0;
  metrics.ttft_ms = Describe(std::move(ttft));
  metrics.tpot_ms = Describe(std::move(tpot));
  metrics.itl_ms = Describe(std::move(itl));
  metrics.e2el_ms = Describe(std::move(e2el));
  return metrics;
}

int64_t MostDecoding(const std::vector<RequestTrace>& traces) {
  int64_t most = std::ranges::any_of(traces, &RequestTrace::ok) ? 1 : 0, decoding = 0;
  for (const auto& [moment, change] : DecodingChanges(traces))
    most = std::max(most, decoding += change);
  return most;
}

double MeanDecoding(const std::vector<RequestTrace>& traces) {
  const std::vector<std::pair<double, int>> changes = DecodingChanges(traces);
  double sum_s = 0, any_s = 0;
  int decoding = 0;
  for (size_t i = 0; i + 1 < changes.size(); ++i) {
    decoding += changes[i].second;
    const double span = changes[i + 1].first - changes[i].first;
    sum_s += decoding * span;
    if (decoding > 0) any_s += span;
  }
  return any_s > 0 ? sum_s / any_s : 1;
}

std::vector<Figure> FiguresOf(const LoadMetrics& metrics) {
  const double duration = metrics.duration_s;
  const auto output = static_cast<double>(metrics.output_tokens);
  const auto all = static_cast<double>(metrics.input_tokens + metrics.output_tokens);
  std::vector<Figure> figures = {
      {"output_throughput", "output tok/s", output / duration},
      {"total_token_throughput", "input + output tok/s", all / duration},
      {"request_throughput", "requests/s", metrics.completed / duration},
      {"duration", "duration s", duration},
  };
  AddFigures("ttft", "TTFT", metrics.ttft_ms, figures);
  AddFigures("tpot", "TPOT", metrics.tpot_ms, figures);
  AddFigures("itl", "ITL", metrics.itl_ms, figures);
  AddFigures("e2el", "E2EL", metrics.e2el_ms, figures);
  if (metrics.decode_tok_per_s > 0)
    figures.push_back(
        {"decode_tok_per_s_a_request", "decode tok/s a request", metrics.decode_tok_per_s});
  return figures;
}

std::vector<Spread> SpreadsOf(const std::vector<std::vector<Figure>>& runs) {
  std::vector<Spread> spreads;
  for (const std::vector<Figure>& run : runs)
    for (const Figure& figure : run) {
      auto found = std::find_if(spreads.begin(), spreads.end(),
                                [&](const Spread& spread) { return spread.key == figure.key; });
      if (found == spreads.end())
        found = spreads.insert(found, {figure.key, figure.title, 0, 0, 0, {}});
      found->runs.push_back(figure.value);
    }
  for (Spread& spread : spreads) {
    const Distribution values = Describe(spread.runs);
    spread.median = values.median;
    spread.min = values.min;
    spread.max = values.max;
  }
  return spreads;
}

}  // namespace lapidary
