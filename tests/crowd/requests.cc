#include "tests/crowd/requests.h"

#include <algorithm>

#include "kv/layout.h"

namespace lapidary {

RequestMaker::RequestMaker(const ModelConfig& config, int max_model_len, uint32_t seed)
    : vocab_size_(config.vocab_size),
      window_(config.window),
      max_model_len_(max_model_len),
      rng_(seed) {
  for (const int length : {30, kPageTokens, 2 * kPageTokens + 1, window_ + kPageTokens + 7})
    systems_.push_back(RandomIds(std::min(length, max_model_len / 2)));
}

int32_t RequestMaker::RandomId() { return Below(vocab_size_); }

std::vector<int32_t> RequestMaker::RandomIds(int count) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = RandomId();
  return ids;
}

Request RequestMaker::Plain(uint64_t id, int prompt_length, int max_tokens, float temperature) {
  Request request;
  request.id = request.sampling.seed = id;
  request.prompt = RandomIds(prompt_length);
  request.max_tokens = max_tokens;
  request.sampling.temperature = temperature;
  request.sampling.ignore_eos = true;
  return request;
}

Request RequestMaker::Make(uint64_t id) {
  Request request = Plain(id, 0, OneOf(6) ? 1 + Below(90) : 1 + Below(12));
  if (!OneOf(3)) {
    request.prompt = systems_[static_cast<size_t>(Below(static_cast<int>(systems_.size())))];
    request.turn_borders.push_back(static_cast<int32_t>(request.prompt.size()));
  }
  const int room = max_model_len_ - static_cast<int>(request.prompt.size()) - request.max_tokens;
  // Half of them end at a page border or beside one.
  const int length =
      OneOf(2) ? 1 + Below(std::min(room, 60))
               : std::clamp(kPageTokens - static_cast<int>(request.prompt.size()) % kPageTokens +
                                Below(3) - 1,
                            1, room);
  const std::vector<int32_t> rest = RandomIds(length);
  request.prompt.insert(request.prompt.end(), rest.begin(), rest.end());
  SetSampling(request.sampling, request.max_tokens);
  if (OneOf(5)) request.num_choices = 2 + Below(2);
  if (OneOf(4)) request.priority = Below(3) - 1;
  if (OneOf(3)) request.max_drafts = Below(kMaxDrafts + 1);
  if (OneOf(12)) request.salt[0] = 1;
  if (OneOf(12)) request.sampling.num_prompt_logprobs = Below(3);
  return request;
}

void RequestMaker::SetSampling(SamplingParams& s, int max_tokens) {
  const float temperatures[] = {0.0f, 0.0f, 0.7f, 1.0f, 1.4f};
  s.temperature = temperatures[Below(5)];
  s.ignore_eos = OneOf(2);
  if (OneOf(3)) s.top_k = 1 + Below(40);
  if (OneOf(3)) s.top_p = 0.8f;
  if (OneOf(4)) s.min_p = 0.02f;
  if (OneOf(4)) s.presence_penalty = 0.7f;
  if (OneOf(4)) s.frequency_penalty = -0.3f;
  if (OneOf(4)) s.repetition_penalty = 1.2f;
  if (OneOf(2)) s.num_logprobs = Below(6);
  if (OneOf(5)) s.logprob_ids = RandomIds(3);
  if (OneOf(3)) s.stop_ids = RandomIds(vocab_size_ / 16);
  if (OneOf(3)) s.min_tokens = Below(max_tokens + 1);
  if (OneOf(6)) s.logit_bias = {{RandomId(), 4.0f}, {RandomId(), -4.0f}};
  if (OneOf(8)) s.allowed_ids = RandomIds(24);
  for (int word = OneOf(4) ? 6 : 0; word > 0; --word)
    s.bad_words.push_back(RandomIds(1 + word % 2));
}

}  // namespace lapidary
