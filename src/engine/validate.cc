#include "engine/validate.h"

#include <algorithm>
#include <string>

namespace lapidary {
namespace {

constexpr size_t kMaxLogprobIds = 1024;
constexpr size_t kMaxBadWordIds = 128;

// Collects the first complaint. Written so that NaN fails every range.
class Checker {
 public:
  explicit Checker(int vocab_size) : vocab_size_(vocab_size) {}

  void Range(const char* param, double x, double lo, double hi) {
    if (!(lo <= x && x <= hi))
      Fail(param, fmt::format("{} must be in [{}, {}], got {}", param, lo, hi, x));
  }
  void AboveZero(const char* param, double x, double hi) {
    if (!(0 < x && x <= hi))
      Fail(param, fmt::format("{} must be in (0, {}], got {}", param, hi, x));
  }
  void Count(const char* param, size_t count, size_t limit) {
    if (count > limit)
      Fail(param, fmt::format("{} has {} entries, the limit is {}", param, count, limit));
  }
  void Id(const char* param, int32_t id) {
    if (id < 0 || id >= vocab_size_)
      Fail(param,
           fmt::format("{}: id {} is not below the vocabulary size {}", param, id, vocab_size_));
  }
  void Ids(const char* param, const std::vector<int32_t>& ids) {
    for (const int32_t id : ids) Id(param, id);
  }
  void Fail(const char* param, std::string message, const char* code = "invalid_value") {
    if (error_.message.empty()) error_ = {std::move(message), param, code};
  }
  Status status() const { return error_.message.empty() ? Status(Ok{}) : Status(error_); }

 private:
  int vocab_size_;
  Error error_;
};

void CheckSampling(const SamplingParams& s, int vocab_size, Checker& check) {
  check.Range("temperature", s.temperature, 0, 100);
  check.Range("top_k", s.top_k, 0, vocab_size);
  check.AboveZero("top_p", s.top_p, 1);
  check.Range("min_p", s.min_p, 0, 1);
  check.Range("presence_penalty", s.presence_penalty, -2, 2);
  check.Range("frequency_penalty", s.frequency_penalty, -2, 2);
  check.AboveZero("repetition_penalty", s.repetition_penalty, 10);
  check.Count("stop_token_ids", s.stop_ids.size(), kMaxStopIds);
  check.Ids("stop_token_ids", s.stop_ids);
  check.Count("logit_bias", s.logit_bias.size(), kMaxLogitBias);
  for (const auto& [id, bias] : s.logit_bias) {
    check.Id("logit_bias", id);
    check.Range("logit_bias", bias, -100, 100);
  }
  check.Count("allowed_token_ids", s.allowed_ids.size(), static_cast<size_t>(vocab_size));
  check.Ids("allowed_token_ids", s.allowed_ids);
  check.Count("bad_words", s.bad_words.size(), kMaxBadWords);
  for (const std::vector<int32_t>& word : s.bad_words) {
    if (word.empty()) check.Fail("bad_words", "bad_words has an empty entry");
    check.Count("bad_words", word.size(), kMaxBadWordIds);
    check.Ids("bad_words", word);
  }
  check.Range("top_logprobs", s.num_logprobs, -1, std::min(kMaxLogprobs, vocab_size));
  check.Range("prompt_logprobs", s.num_prompt_logprobs, -1, std::min(kMaxLogprobs, vocab_size));
  check.Count("logprob_token_ids", s.logprob_ids.size(), kMaxLogprobIds);
  check.Ids("logprob_token_ids", s.logprob_ids);
}

}  // namespace

Status ValidateRequest(const Request& request, int vocab_size, int max_model_len) {
  Checker check(vocab_size);
  const size_t length = request.prompt.size();
  if (length == 0) check.Fail("prompt", "the prompt has no tokens");
  if (length >= static_cast<size_t>(max_model_len))
    check.Fail("prompt",
               fmt::format("the prompt has {} tokens, the context is {} tokens, at least one of "
                           "them for the answer",
                           length, max_model_len),
               "context_length_exceeded");
  check.Ids("prompt", request.prompt);
  check.Range("max_tokens", request.max_tokens, 0, 1 << 30);
  check.Range("n", request.num_choices, 1, kMaxChoices);
  check.Range("min_tokens", request.sampling.min_tokens, 0, request.max_tokens);
  if (request.max_drafts) check.Range("speculative_num_steps", *request.max_drafts, 0, kMaxDrafts);
  CheckSampling(request.sampling, vocab_size, check);
  return check.status();
}

}  // namespace lapidary
