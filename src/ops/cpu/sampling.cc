#include "ops/sampling.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <iterator>
#include <limits>
#include <utility>

#include "base/check.h"
#include "ops/cpu/vector.h"

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

using cpu::Float4;

Float4 Max(Float4 a, Float4 b) { return a > b ? a : b; }

// Of finite numbers and -infinity.
float Max(std::span<const float> values) {
  Float4 best[4] = {};
  for (Float4& lanes : best) lanes += kMasked;
  size_t i = 0;
  for (; i + 16 <= values.size(); i += 16)
    for (size_t j = 0; j < 4; ++j) best[j] = Max(best[j], cpu::Load4(&values[i + 4 * j]));
  for (; i < values.size(); ++i) best[0][0] = std::max(best[0][0], values[i]);
  const Float4 all = Max(Max(best[0], best[1]), Max(best[2], best[3]));
  return std::max(std::max(all[0], all[1]), std::max(all[2], all[3]));
}

// Logits this near each other may be equal when divided by the temperature.
float Slack(float logit) { return std::fabs(logit) * 0x1p-20f + 0x1p-100f; }

// A candidate's place in the order and its id in one word: smaller words are better, and ties of
// the logit go to the lower id.
uint64_t PackCandidate(float scaled, size_t id) {
  const auto bits = std::bit_cast<uint32_t>(scaled + 0.0f);  // -0 is 0
  const uint32_t ascending = bits ^ (bits >> 31 != 0 ? 0xffffffffu : 0x80000000u);
  return uint64_t{~ascending} << 32 | id;
}
int32_t IdOfCandidate(uint64_t candidate) { return static_cast<int32_t>(candidate & 0xffffffffu); }
float ScaledOf(uint64_t candidate) {
  const uint32_t ascending = ~static_cast<uint32_t>(candidate >> 32);
  return std::bit_cast<float>(ascending ^ (ascending >> 31 != 0 ? 0x80000000u : 0xffffffffu));
}

// Words whose lower halves ascend. Many are sorted by digits of the upper half, the least first.
void SortCandidates(std::vector<uint64_t>& words, std::vector<uint64_t>& scratch) {
  constexpr size_t kFewWords = 2048;
  if (words.size() <= kFewWords) return std::sort(words.begin(), words.end());
  constexpr int kDigitBits = 11;
  constexpr size_t kDigits = size_t{1} << kDigitBits;
  scratch.resize(words.size());
  for (int shift = 32; shift < 64; shift += kDigitBits) {
    std::array<uint32_t, kDigits> starts{};
    const auto digit = [shift](uint64_t word) { return word >> shift & (kDigits - 1); };
    for (const uint64_t word : words) ++starts[digit(word)];
    uint32_t sum = 0;
    for (uint32_t& start : starts) sum += std::exchange(start, sum);
    for (const uint64_t word : words) scratch[starts[digit(word)]++] = word;
    words.swap(scratch);
  }
}

}  // namespace

double UniformAt(uint64_t seed, uint32_t choice, uint64_t position) {
  const uint64_t bits = Mix(Mix(Mix(seed) ^ choice) ^ position);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

bool AllFinite(std::span<const float> logits) {
  // Eight words of bits at a time, none of them left early: the compiler makes vectors of them.
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t bad[8] = {};
  size_t i = 0;
  for (; i + 8 <= logits.size(); i += 8)
    for (size_t l = 0; l < 8; ++l)
      bad[l] |= (std::bit_cast<uint32_t>(logits[i + l]) & kExponent) == kExponent;
  for (; i < logits.size(); ++i)
    bad[0] |= (std::bit_cast<uint32_t>(logits[i]) & kExponent) == kExponent;
  return std::all_of(std::begin(bad), std::end(bad), [](uint32_t word) { return word == 0; });
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
  top.reserve(best.size());
  for (const int32_t id : best) top.emplace_back(id, of(id));
  return top;
}

EditedRow::EditedRow(size_t size)
    : size_(size), blocks_((size + kBlock - 1) / kBlock), copy_(size) {}

void EditedRow::Reset(std::span<const float> row) {
  CHECK(row.size() == size_, "{} logits, vocabulary {}", row.size(), size_);
  for (size_t i = 0; i < blocks_.size(); ++i) blocks_[i] = row.data() + i * kBlock;
}

void EditedRow::KeepOnly(std::span<const int32_t> ids) {
  std::vector<float> kept;
  for (const int32_t id : ids) kept.push_back(at(id));
  std::fill(copy_.begin(), copy_.end(), kMasked);
  for (size_t i = 0; i < blocks_.size(); ++i) blocks_[i] = copy_.data() + i * kBlock;
  for (size_t i = 0; i < ids.size(); ++i) at(ids[i]) = kept[i];
}

float& EditedRow::at(int32_t id) {
  const size_t i = Index(id) / kBlock;
  CHECK(Index(id) < size_, "id {}, vocabulary {}", id, size_);
  float* const copy = copy_.data() + i * kBlock;
  if (blocks_[i] != copy) {
    std::copy_n(blocks_[i], block(i).size(), copy);
    blocks_[i] = copy;
  }
  return copy[Index(id) % kBlock];
}

Sampler::Sampler(int vocab_size)
    : vocab_size_(Index(vocab_size)),
      row_(vocab_size_),
      counts_(vocab_size_),
      seen_(vocab_size_),
      maxima_(row_.num_blocks()) {
  ordered_maxima_.reserve(maxima_.size());
  candidates_.reserve(vocab_size_);
  scratch_.resize(vocab_size_);
  weights_.reserve(vocab_size_);
}

std::optional<int32_t> Sampler::Sample(std::span<const float> logits, const SamplingRow& row) {
  row_.Reset(logits);
  for (const int32_t id : row.suppress) row_.at(id) = kMasked;
  for (const auto& [id, bias] : row.bias) row_.at(id) += bias;
  Penalize(row);
  Mask(row);
  const float best = FindBest();
  if (best == kMasked) return std::nullopt;
  if (row.temperature < kGreedyBelow) return IdOf(best);
  return Draw(row, best);
}

void Sampler::Penalize(const SamplingRow& row) {
  if (row.repetition_penalty != 1.0f) {
    for (const int32_t id : row.history) {
      if (seen_.at(Index(id))) continue;
      seen_[Index(id)] = true;
      float& x = row_.at(id);
      x = x > 0 ? x / row.repetition_penalty : x * row.repetition_penalty;
    }
    for (const int32_t id : row.history) seen_[Index(id)] = false;
  }
  if (row.presence_penalty == 0.0f && row.frequency_penalty == 0.0f) return;
  const auto generated = row.history.subspan(row.num_prompt);
  for (const int32_t id : generated) ++counts_.at(Index(id));
  for (const int32_t id : generated) {
    int32_t& count = counts_[Index(id)];
    if (count == 0) continue;
    row_.at(id) -= row.presence_penalty + row.frequency_penalty * static_cast<float>(count);
    count = 0;
  }
}

void Sampler::Mask(const SamplingRow& row) {
  if (!row.allowed.empty()) row_.KeepOnly(row.allowed);
  const auto generated = row.history.subspan(row.num_prompt);
  for (const std::vector<int32_t>& word : row.bad_words) {
    const std::span<const int32_t> ids(word);
    if (!ids.empty() && EndsWith(generated, ids.first(ids.size() - 1)))
      row_.at(ids.back()) = kMasked;
  }
  for (const int32_t id : row.held_off) row_.at(id) = kMasked;
}

// The one pass over the whole row: each block's best, and the best of all.
float Sampler::FindBest() {
  for (size_t i = 0; i < maxima_.size(); ++i) maxima_[i] = Max(row_.block(i));
  return *std::max_element(maxima_.begin(), maxima_.end());
}

int32_t Sampler::IdOf(float best) const {
  const size_t i = Index(
      static_cast<int32_t>(std::find(maxima_.begin(), maxima_.end(), best) - maxima_.begin()));
  const std::span<const float> block = row_.block(i);
  return static_cast<int32_t>(i * EditedRow::kBlock) +
         static_cast<int32_t>(std::find(block.begin(), block.end(), best) - block.begin());
}

// No logit below it can be drawn or change a sum.
float Sampler::Threshold(const SamplingRow& row, float best) {
  // Sums begin with 1, the best one's weight. They do not change by a weight below 2^-53: e^-36.8.
  constexpr float kNegligible = 38;
  float threshold = best - kNegligible * row.temperature - Slack(best);
  if (row.min_p > 0.0f && row.top_p >= 1.0f)
    threshold =
        std::max(threshold, best + (std::log(row.min_p) - 0.01f) * row.temperature - Slack(best));
  if (row.top_k <= 0 || Index(row.top_k) > maxima_.size()) return threshold;
  // So many blocks hold a logit that is at least the k-th best block's best.
  ordered_maxima_.assign(maxima_.begin(), maxima_.end());
  const auto kth = ordered_maxima_.begin() + row.top_k - 1;
  std::nth_element(ordered_maxima_.begin(), kth, ordered_maxima_.end(), std::greater<>());
  return std::max(threshold, *kth - Slack(*kth));
}

// The candidates in their order: descending, ties to the lower id; at most top-k.
void Sampler::Collect(const SamplingRow& row, float threshold) {
  candidates_.clear();
  for (size_t i = 0; i < maxima_.size(); ++i) {
    if (maxima_[i] < threshold || maxima_[i] == kMasked) continue;
    const std::span<const float> block = row_.block(i);
    for (size_t j = 0; j < block.size(); ++j)
      if (block[j] >= threshold && block[j] != kMasked)
        candidates_.push_back(PackCandidate(block[j] / row.temperature, i * EditedRow::kBlock + j));
  }
  if (row.top_k <= 0 || Index(row.top_k) >= candidates_.size())
    return SortCandidates(candidates_, scratch_);
  const auto end = candidates_.begin() + row.top_k;
  std::partial_sort(candidates_.begin(), end, candidates_.end());
  candidates_.erase(end, candidates_.end());
}

// In the order of ids, for nothing asks for the order of the logits.
int32_t Sampler::DrawPlain(const SamplingRow& row, float best) {
  const float threshold = Threshold(row, best);
  const double max = double{best / row.temperature};
  const auto weight = [&](float x) {
    return x < threshold || x == kMasked ? 0 : std::exp(double{x / row.temperature} - max);
  };
  weights_.assign(maxima_.size(), 0);  // of each block
  double sum = 0;
  for (size_t i = 0; i < maxima_.size(); ++i) {
    if (maxima_[i] < threshold || maxima_[i] == kMasked) continue;
    for (const float x : row_.block(i)) weights_[i] += weight(x);
    sum += weights_[i];
  }
  double left = UniformAt(row.seed, row.choice, row.position) * sum;
  size_t last = maxima_.size();  // the newest that weighs anything, if rounding hides the place
  for (size_t i = 0; i < maxima_.size(); ++i) {
    if (weights_[i] > 0) last = i;
    if (weights_[i] > left) break;
    left -= weights_[i];
  }
  const std::span<const float> block = row_.block(last);
  size_t place = 0;
  for (size_t j = 0; j < block.size(); ++j) {
    const double w = weight(block[j]);
    if (w > 0) place = j;
    if (w > left) break;
    left -= w;
  }
  return static_cast<int32_t>(last * EditedRow::kBlock + place);
}

int32_t Sampler::Draw(const SamplingRow& row, float best) {
  if (row.top_k <= 0 && row.top_p >= 1.0f && row.min_p <= 0.0f) return DrawPlain(row, best);
  Collect(row, Threshold(row, best));
  const double max = double{best / row.temperature};
  weights_.clear();
  double sum = 0;
  for (const uint64_t candidate : candidates_)
    sum += weights_.emplace_back(std::exp(double{ScaledOf(candidate)} - max));
  if (row.top_p < 1.0f) {
    const double wanted = sum * double{row.top_p};
    size_t count = 0;
    sum = 0;
    while (count < weights_.size() && sum < wanted) sum += weights_[count++];
    weights_.resize(std::max<size_t>(count, 1));
  }
  if (row.min_p > 0.0f) {
    while (weights_.size() > 1 && weights_.back() < double{row.min_p})
      weights_.pop_back();  // the best weighs 1
  }
  sum = 0;
  for (const double weight : weights_) sum += weight;
  const double target = UniformAt(row.seed, row.choice, row.position) * sum;
  double reached = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    reached += weights_[i];
    if (reached > target) return IdOfCandidate(candidates_[i]);
  }
  return IdOfCandidate(candidates_.front());  // rounding left the last border below the target
}

}  // namespace lapidary
