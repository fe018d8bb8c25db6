#include "ops/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace lapidary {
namespace {

constexpr float kGreedyBelow = 1e-5f;
constexpr float kMasked = -std::numeric_limits<float>::infinity();

// A bijection of 64 bits in which every input bit reaches every output bit.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

bool EndsWith(std::span<const int32_t> history, std::span<const int32_t> tail) {
  return history.size() >= tail.size() && std::equal(tail.rbegin(), tail.rend(), history.rbegin());
}

size_t Index(int32_t id) { return static_cast<size_t>(id); }

}  // namespace

double UniformAt(uint64_t seed, uint32_t choice, uint64_t position) {
  const uint64_t bits = Mix(Mix(Mix(seed) ^ choice) ^ position);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

bool AllFinite(std::span<const float> logits) {
  return std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); });
}

RowLogprobs::RowLogprobs(std::span<const float> logits) : logits_(logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - max);
  log_sum_ = max + std::log(sum);
}

float RowLogprobs::of(int32_t id) const {
  return static_cast<float>(logits_[Index(id)] - log_sum_);
}

std::vector<std::pair<int32_t, float>> RowLogprobs::Top(int n) const {
  // A heap of the n best so far, the worst in front.
  const auto better = [&](int32_t a, int32_t b) {
    return logits_[Index(a)] != logits_[Index(b)] ? logits_[Index(a)] > logits_[Index(b)] : a < b;
  };
  std::vector<int32_t> best;
  for (int32_t id = 0; id < static_cast<int32_t>(logits_.size()) && n > 0; ++id) {
    if (static_cast<int>(best.size()) == n) {
      if (!better(id, best.front())) continue;
      std::pop_heap(best.begin(), best.end(), better);
      best.pop_back();
    }
    best.push_back(id);
    std::push_heap(best.begin(), best.end(), better);
  }
  std::sort(best.begin(), best.end(), better);
  std::vector<std::pair<int32_t, float>> top;
  for (const int32_t id : best) top.emplace_back(id, of(id));
  return top;
}

Sampler::Sampler(int vocab_size)
    : logits_(Index(vocab_size)), counts_(Index(vocab_size)), kept_(Index(vocab_size)) {
  candidates_.reserve(Index(vocab_size));
}

std::optional<int32_t> Sampler::Sample(std::span<const float> logits, const SamplingRow& row) {
  CHECK(logits.size() == logits_.size(), "{} logits, vocabulary {}", logits.size(), logits_.size());
  std::copy(logits.begin(), logits.end(), logits_.begin());
  for (const int32_t id : row.suppress) logits_.at(Index(id)) = kMasked;
  for (const auto& [id, bias] : row.bias) logits_.at(Index(id)) += bias;
  Penalize(row);
  Mask(row);
  const auto best = std::max_element(logits_.begin(), logits_.end());
  if (*best == kMasked) return std::nullopt;
  if (row.temperature < kGreedyBelow) return static_cast<int32_t>(best - logits_.begin());
  return Draw(row);
}

void Sampler::Penalize(const SamplingRow& row) {
  if (row.repetition_penalty != 1.0f) {
    for (const int32_t id : row.history) {
      if (kept_.at(Index(id))) continue;  // here: seen
      kept_[Index(id)] = true;
      float& x = logits_[Index(id)];
      x = x > 0 ? x / row.repetition_penalty : x * row.repetition_penalty;
    }
    for (const int32_t id : row.history) kept_[Index(id)] = false;
  }
  if (row.presence_penalty == 0.0f && row.frequency_penalty == 0.0f) return;
  const auto generated = row.history.subspan(row.num_prompt);
  for (const int32_t id : generated) ++counts_.at(Index(id));
  for (const int32_t id : generated) {
    int32_t& count = counts_[Index(id)];
    if (count == 0) continue;
    logits_[Index(id)] -= row.presence_penalty + row.frequency_penalty * static_cast<float>(count);
    count = 0;
  }
}

void Sampler::Mask(const SamplingRow& row) {
  if (!row.allowed.empty()) {
    for (const int32_t id : row.allowed) kept_.at(Index(id)) = true;
    for (size_t i = 0; i < logits_.size(); ++i)
      if (!kept_[i]) logits_[i] = kMasked;
    for (const int32_t id : row.allowed) kept_[Index(id)] = false;
  }
  const auto generated = row.history.subspan(row.num_prompt);
  for (const std::vector<int32_t>& word : row.bad_words) {
    const std::span<const int32_t> ids(word);
    if (!ids.empty() && EndsWith(generated, ids.first(ids.size() - 1)))
      logits_.at(Index(ids.back())) = kMasked;
  }
  for (const int32_t id : row.held_off) logits_.at(Index(id)) = kMasked;
}

int32_t Sampler::Draw(const SamplingRow& row) {
  candidates_.clear();
  float max = kMasked;
  for (size_t i = 0; i < logits_.size(); ++i) {
    if (logits_[i] == kMasked) continue;
    const float scaled = logits_[i] / row.temperature;
    max = std::max(max, scaled);
    candidates_.push_back({static_cast<int32_t>(i), scaled, 0});
  }
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  if (row.top_k > 0 && Index(row.top_k) < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + row.top_k - 1, candidates_.end(),
                     better);
    candidates_.resize(Index(row.top_k));
  }
  // One order of summation whatever nth_element left.
  std::sort(candidates_.begin(), candidates_.end(), better);
  double sum = 0;
  for (Candidate& c : candidates_) sum += c.weight = std::exp(double{c.logit} - double{max});
  if (row.top_p < 1.0f) {
    const double wanted = sum * double{row.top_p};
    size_t count = 0;
    sum = 0;
    while (count < candidates_.size() && sum < wanted) sum += candidates_[count++].weight;
    candidates_.resize(std::max<size_t>(count, 1));
  }
  if (row.min_p > 0.0f) {
    while (candidates_.size() > 1 && candidates_.back().weight < double{row.min_p})
      candidates_.pop_back();  // the best weighs 1
  }
  sum = 0;
  for (const Candidate& c : candidates_) sum += c.weight;
  const double target = UniformAt(row.seed, row.choice, row.position) * sum;
  double reached = 0;
  for (const Candidate& c : candidates_) {
    reached += c.weight;
    if (reached > target) return c.id;
  }
  return candidates_.front().id;  // rounding left the last border below the target
}

}  // namespace lapidary
