#include "app/verify/bf16_cost.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>

#include "app/verify/ranks.h"

namespace lapidary {
namespace {

// Of the reference's distance: the mean, and the 99th percentile where there are rows beyond it.
constexpr double kMaxMean = 1.1, kMaxTail = 1.5;
constexpr size_t kTailRows = 1000;
// A mean of rows is known to its standard error; three of them are exceeded by chance once in 700.
constexpr double kErrors = 3;
// Below this the reference loses nothing by bf16: one token has all the probability, and nothing
// can be seen.
constexpr double kBlind = 1e-7;

struct Softmax {
  double top = 0, log_sum = 0;  // log p(i) = x[i] - top - log_sum
};

template <typename T>
Softmax SoftmaxOf(const T* row, int64_t count) {
  Softmax softmax{-INFINITY, 0};
  for (int64_t i = 0; i < count; ++i)
    softmax.top = std::max(softmax.top, static_cast<double>(Value(row[i])));
  double sum = 0;
  for (int64_t i = 0; i < count; ++i)
    sum += std::exp(static_cast<double>(Value(row[i])) - softmax.top);
  softmax.log_sum = std::log(sum);
  return softmax;
}

// Infinite where a logit of `other` is no number.
template <typename T>
double Distance(Bf16Cost::Measure measure, const float* exact, const T* other, int64_t count) {
  const Softmax p = SoftmaxOf(exact, count), q = SoftmaxOf(other, count);
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double log_p = static_cast<double>(exact[i]) - p.top - p.log_sum;
    const double log_q = static_cast<double>(Value(other[i])) - q.top - q.log_sum;
    const double weight = std::exp(log_p);
    if (measure == Bf16Cost::Measure::kVariation)
      sum += std::max(0.0, weight - std::exp(log_q)) + (std::isnan(log_q) ? NAN : 0);
    else if (weight > 0 || std::isnan(log_q))
      sum += weight * (log_p - log_q);
  }
  return std::isnan(sum) ? std::numeric_limits<double>::infinity() : sum;
}

template <typename T>
bool AreApart(const float* exact, const T* other, int64_t count) {
  const int64_t best = BestOf(exact, count), others = BestOf(other, count);
  return best != others && (RankOf(exact, count, others) >= Bf16Cost::kBest ||
                            RankOf(other, count, best) >= Bf16Cost::kBest);
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double x : values) sum += x;
  return sum / static_cast<double>(values.size());
}

double Tail(std::vector<double> values) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(values.size() * 99 / 100);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

}  // namespace

Bf16Cost::Bf16Cost(Measure measure)
    : measure_(measure),
      pool_(std::max(1, static_cast<int>(std::thread::hardware_concurrency()))) {}

void Bf16Cost::Add(std::span<const Row> rows, int64_t vocab_size) {
  const size_t first = ours_.size();
  ours_.resize(first + rows.size());
  reference_.resize(first + rows.size());
  apart_.resize(first + rows.size());
  pool_.ParallelFor(static_cast<int64_t>(rows.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const Row& row = rows[i];
      ours_[first + i] = Distance(measure_, row.exact, row.ours, vocab_size);
      reference_[first + i] = Distance(measure_, row.exact, row.reference, vocab_size);
      apart_[first + i] = AreApart(row.exact, row.reference, vocab_size);
    }
  });
}

Bf16Cost::Verdict Bf16Cost::JudgeApart(int64_t steps, int64_t apart) const {
  if (apart_.empty()) return {false, "no rows"};
  const auto seen = std::count(apart_.begin(), apart_.end(), 1);
  const double expected =
      static_cast<double>(steps) * static_cast<double>(seen) / static_cast<double>(apart_.size());
  const auto limit = static_cast<int64_t>(expected + kErrors * std::sqrt(expected));
  return {apart <= limit,
          fmt::format("{} with a best token not among the other's best {}, limit {}: of the "
                      "reference's {} rows in bf16 {} are so",
                      apart, kBest, limit, apart_.size(), seen)};
}

Bf16Cost::Verdict Bf16Cost::Judge() const {
  if (ours_.empty()) return {false, "no rows"};
  const double ours = Mean(ours_), reference = Mean(reference_);
  const auto count = static_cast<double>(ours_.size());
  double squares = 0;
  for (size_t i = 0; i < ours_.size(); ++i) {
    const double excess = (ours_[i] - ours) - kMaxMean * (reference_[i] - reference);
    squares += excess * excess;
  }
  const bool has_tail = ours_.size() >= kTailRows;
  const double error = has_tail ? 0 : kErrors * std::sqrt(squares) / count;
  const char* const name = measure_ == Measure::kDivergence ? "divergence" : "variation";
  Verdict verdict;
  verdict.passed = reference >= kBlind && ours <= kMaxMean * reference + error;
  verdict.text = fmt::format(
      "{} rows, {} from f32: mean {:.3e}, the reference's {:.3e} ({:.3f} x, limit {:g} x{})",
      ours_.size(), name, ours, reference, ours / reference, kMaxMean,
      has_tail ? "" : fmt::format(" and {:.1e}", error));
  if (has_tail) {
    const double tail = Tail(ours_), reference_tail = Tail(reference_);
    verdict.passed = verdict.passed && tail <= kMaxTail * reference_tail;
    verdict.text += fmt::format("; 99 % below {:.3e}, {:.3e} ({:.3f} x, limit {:g} x)", tail,
                                reference_tail, tail / reference_tail, kMaxTail);
  }
  if (reference < kBlind) verdict.text += "; such logits show nothing";
  return verdict;
}

}  // namespace lapidary
