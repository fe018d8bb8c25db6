#include "tests/server/metrics_page.h"

#include <cmath>
#include <regex>
#include <set>
#include <sstream>

namespace lapidary {
namespace {

class Parser {
 public:
  MetricsPage Parse(const std::string& text) {
    if (text.empty() || text.back() != '\n') Fail("no newline at the end");
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line) && page_.error.empty();) Take(line);
    for (const auto& [series, count] : counts_)
      if (last_bucket_[series] != count) Fail("the +Inf bucket is not the count: " + series);
    return std::move(page_);
  }

 private:
  void Fail(const std::string& why) {
    if (page_.error.empty()) page_.error = why;
  }

  void Take(const std::string& line) {
    static const std::regex head(R"(# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+))");
    static const std::regex sample(
        R"(([a-zA-Z_:][a-zA-Z0-9_:]*)(\{([a-zA-Z_][a-zA-Z0-9_]*="[^"\s]*",?)+\})? (\S+))");
    std::smatch match;
    if (std::regex_match(line, match, head)) return TakeHead(match[1], match[2], match[3]);
    if (std::regex_match(line, match, sample)) return TakeSample(match[1], match[2], match[4]);
    Fail("no line of the format: " + line);
  }

  void TakeHead(const std::string& kind, const std::string& name, const std::string& value) {
    if (!heads_.insert(kind + name).second) Fail("a second " + kind + " of " + name);
    if (kind == "HELP") {
      family_ = name;
      return;
    }
    if (name != family_) Fail("TYPE without its HELP: " + name);
    if (value != "counter" && value != "gauge" && value != "histogram") Fail("type " + value);
    if (value == "counter" && !name.ends_with("_total")) Fail("counter without _total: " + name);
    page_.types[name] = value;
  }

  void TakeSample(const std::string& name, const std::string& labels, const std::string& text) {
    const bool is_histogram = page_.types[family_] == "histogram";
    const std::string suffix = name.substr(std::min(name.size(), family_.size()));
    if (!name.starts_with(family_) ||
        (is_histogram ? suffix != "_bucket" && suffix != "_sum" && suffix != "_count"
                      : !suffix.empty()))
      Fail("a sample outside its family: " + name);
    const double value = std::stod(text);
    if (!page_.samples.emplace(name + labels, value).second) Fail("twice: " + name + labels);
    if (is_histogram) TakeOfHistogram(suffix, labels, value);
  }

  void TakeOfHistogram(const std::string& suffix, const std::string& labels, double value) {
    const size_t at = labels.find("le=\"");
    if (suffix == "_count") counts_[family_ + labels] = value;
    if (suffix != "_bucket") return;
    if (at == std::string::npos) return Fail("a bucket without a bound: " + family_);
    const std::string bound = labels.substr(at + 4, labels.find('"', at + 4) - at - 4);
    if (bound != "+Inf" && bound.find_first_of(".e") == std::string::npos)
      Fail("a bound without a point: " + bound);
    // {a="b",le="1.0"} is of the series {a="b"}, {le="1.0"} of the one without labels.
    std::string series = labels.substr(0, at);
    series = series == "{" ? "" : series.substr(0, series.size() - 1) + "}";
    series = family_ + series;
    const double upper = bound == "+Inf" ? INFINITY : std::stod(bound);
    if (last_bound_.contains(series) && last_bound_[series] < INFINITY &&
        (upper <= last_bound_[series] || value < last_bucket_[series]))
      Fail("buckets do not grow: " + series);
    last_bound_[series] = upper;
    last_bucket_[series] = value;
  }

  MetricsPage page_;
  std::string family_;
  std::set<std::string> heads_;
  std::map<std::string, double> counts_, last_bucket_, last_bound_;  // by series
};

}  // namespace

MetricsPage ParseMetrics(const std::string& text) { return Parser().Parse(text); }

}  // namespace lapidary
