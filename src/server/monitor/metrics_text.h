// MetricsText: a page in Prometheus' text format.
#ifndef LAPIDARY_SERVER_MONITOR_METRICS_TEXT_H_
#define LAPIDARY_SERVER_MONITOR_METRICS_TEXT_H_

#include <prometheus/client_metric.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lapidary {

using MetricLabels = std::vector<std::pair<std::string_view, std::string>>;

// The samples of a family follow its head. Bounds are written with a decimal point, label values
// without blanks; nothing has a time stamp.
class MetricsText {
 public:
  // Labels of every sample whose name begins so.
  void AddLabels(std::string_view name_prefix, MetricLabels labels);
  void Family(std::string_view name, std::string_view type, std::string_view help);
  void Sample(double value, const MetricLabels& labels = {}) { Line("", value, labels, {}); }
  void Histogram(const prometheus::ClientMetric::Histogram& histogram,
                 const MetricLabels& labels = {});
  // A family of one sample.
  void Gauge(std::string_view name, std::string_view help, double value);
  void Counter(std::string_view name, std::string_view help, double value);
  std::string Take() { return std::move(text_); }

 private:
  void Line(std::string_view suffix, double value, const MetricLabels& labels,
            std::string_view bound);

  std::vector<std::pair<std::string, MetricLabels>> common_;
  std::string name_, text_;
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_MONITOR_METRICS_TEXT_H_
