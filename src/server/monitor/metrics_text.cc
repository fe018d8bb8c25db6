#include "server/monitor/metrics_text.h"

#include <fmt/core.h>

#include <cmath>

namespace lapidary {
namespace {

std::string Bound(double value) {
  if (std::isinf(value)) return "+Inf";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

// Dashboards split at blanks.
void AppendLabel(std::string& out, std::string_view name, std::string_view value) {
  out += out.empty() ? '{' : ',';
  out.append(name).append("=\"");
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    out += static_cast<unsigned char>(c) <= ' ' ? '_' : c;
  }
  out += '"';
}

}  // namespace

void MetricsText::AddLabels(std::string_view name_prefix, MetricLabels labels) {
  common_.emplace_back(name_prefix, std::move(labels));
}

void MetricsText::Family(std::string_view name, std::string_view type, std::string_view help) {
  name_ = name;
  text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

void MetricsText::Line(std::string_view suffix, double value, const MetricLabels& labels,
                       std::string_view bound) {
  std::string list;
  for (const auto& [prefix, common] : common_)
    if (name_.starts_with(prefix))
      for (const auto& [name, text] : common) AppendLabel(list, name, text);
  for (const auto& [name, text] : labels) AppendLabel(list, name, text);
  if (!bound.empty()) AppendLabel(list, "le", bound);
  if (!list.empty()) list += '}';
  text_ += fmt::format("{}{}{} {}\n", name_, suffix, list, value);
}

void MetricsText::Histogram(const prometheus::ClientMetric::Histogram& histogram,
                            const MetricLabels& labels) {
  for (const auto& bucket : histogram.bucket)
    Line("_bucket", static_cast<double>(bucket.cumulative_count), labels,
         Bound(bucket.upper_bound));
  Line("_sum", histogram.sample_sum, labels, {});
  Line("_count", static_cast<double>(histogram.sample_count), labels, {});
}

void MetricsText::Gauge(std::string_view name, std::string_view help, double value) {
  Family(name, "gauge", help);
  Sample(value);
}

void MetricsText::Counter(std::string_view name, std::string_view help, double value) {
  Family(name, "counter", help);
  Sample(value);
}

}  // namespace lapidary
