// ParseMetrics: Prometheus' text format as its specification has it; anything else is a failure.
#ifndef LAPIDARY_TESTS_SERVER_METRICS_PAGE_H_
#define LAPIDARY_TESTS_SERVER_METRICS_PAGE_H_

#include <map>
#include <string>

namespace lapidary {

struct MetricsPage {
  std::map<std::string, std::string> types;  // of the families
  std::map<std::string, double> samples;     // by name and labels as written
  std::string error;                         // of the first line that is wrong
  bool Has(const std::string& sample) const { return samples.contains(sample); }
};

// Held: each family has one HELP and one TYPE before its samples, which stand together; names and
// labels are of the allowed letters; counters end in _total; buckets grow up to +Inf, which equals
// the count; no sample comes twice.
MetricsPage ParseMetrics(const std::string& text);

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_SERVER_METRICS_PAGE_H_
