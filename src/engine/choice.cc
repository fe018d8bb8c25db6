#include "engine/choice.h"

#include <algorithm>
#include <utility>

namespace lapidary {

Choice::Choice(std::shared_ptr<LiveRequest> live, int index, int max_length, const EngineIds& ids)
    : live_(std::move(live)),
      index_(index),
      max_length_(static_cast<size_t>(max_length)),
      ids_(ids),
      stops_(live_->request.sampling.stop_ids) {
  if (!live_->request.sampling.ignore_eos)
    stops_.insert(stops_.end(), ids.end_ids.begin(), ids.end_ids.end());
}

bool Choice::Advance(const PlannedRows& rows, const float* logits, std::span<const int32_t> history,
                     Sampler& sampler, int vocab_size) {
  const auto vocab = static_cast<size_t>(vocab_size);
  const auto num_outputs = static_cast<size_t>(rows.num_outputs);
  for (size_t i = 0; i < num_outputs; ++i) {
    if (AllFinite({logits + i * vocab, vocab})) continue;
    End(FinishReason::kError);
    return true;
  }
  const SamplingParams& params = live_->request.sampling;
  const bool prompt_done =
      rows.first_position + rows.num_rows >= static_cast<int>(live_->request.prompt.size());
  if (index_ == 0 && params.num_prompt_logprobs >= 0 && num_generated_ == 0)
    ScorePrompt(rows, logits, vocab);
  if (rows.samples) {
    Draw({logits + (num_outputs - 1) * vocab, vocab}, history, sampler);
  } else if (prompt_done && live_->request.max_tokens == 0) {
    End(FinishReason::kLength);
  }
  if (prompt_done && !prompt_logprobs_.empty())
    event_.prompt_logprobs = std::exchange(prompt_logprobs_, {});
  return event_.finish != FinishReason::kNone;
}

void Choice::ScorePrompt(const PlannedRows& rows, const float* logits, size_t vocab) {
  const std::vector<int32_t>& prompt = live_->request.prompt;
  if (prompt_logprobs_.empty()) prompt_logprobs_.emplace_back();  // nothing predicts the first
  const auto first = static_cast<size_t>(rows.first_position + rows.num_rows - rows.num_outputs);
  for (size_t i = 0; i < static_cast<size_t>(rows.num_outputs); ++i) {
    const size_t next = first + i + 1;
    if (next != prompt_logprobs_.size() || next >= prompt.size()) continue;
    prompt_logprobs_.emplace_back(LogprobsOf({logits + i * vocab, vocab}, prompt[next],
                                             live_->request.sampling.num_prompt_logprobs, false));
  }
}

void Choice::Draw(std::span<const float> logits, std::span<const int32_t> history,
                  Sampler& sampler) {
  const SamplingParams& params = live_->request.sampling;
  SamplingRow row;
  row.temperature = params.temperature;
  row.top_k = params.top_k;
  row.top_p = params.top_p;
  row.min_p = params.min_p;
  row.presence_penalty = params.presence_penalty;
  row.frequency_penalty = params.frequency_penalty;
  row.repetition_penalty = params.repetition_penalty;
  row.seed = params.seed;
  row.choice = static_cast<uint32_t>(index_);
  row.position = history.size();
  row.history = history;
  row.num_prompt = live_->request.prompt.size();
  row.suppress = ids_.suppress_ids;
  row.bias = params.logit_bias;
  row.allowed = params.allowed_ids;
  row.bad_words = params.bad_words;
  if (num_generated_ < params.min_tokens) row.held_off = stops_;
  const auto token = sampler.Sample(logits, row);
  if (!token) {  // the masks leave nothing to say
    End(FinishReason::kStop);
    return;
  }
  if (params.num_logprobs >= 0 || !params.logprob_ids.empty())
    event_.logprobs.push_back(LogprobsOf(logits, *token, params.num_logprobs, true));
  event_.tokens.push_back(*token);
  last_token_ = *token;
  ++num_generated_;
  CheckEnd(*token, history.size() + 1);
}

void Choice::CheckEnd(int32_t token, size_t length) {
  if (std::find(stops_.begin(), stops_.end(), token) != stops_.end()) {
    event_.stop_id = token;
    End(FinishReason::kStop);
  } else if (length >= max_length_) {
    End(FinishReason::kLength);
  }
}

TokenLogprobs Choice::LogprobsOf(std::span<const float> logits, int32_t token, int num_top,
                                 bool asked) const {
  const RowLogprobs row(logits);
  TokenLogprobs result;
  result.token = token;
  result.logprob = row.of(token);
  result.top = row.Top(std::max(0, num_top));
  if (asked)
    for (const int32_t id : live_->request.sampling.logprob_ids)
      result.asked.emplace_back(id, row.of(id));
  return result;
}

bool Choice::has_news() const {
  return !event_.tokens.empty() || event_.finish != FinishReason::kNone;
}

TokenEvent Choice::TakeEvent() {
  TokenEvent event = std::exchange(event_, {});
  event.request_id = live_->request.id;
  event.choice = index_;
  return event;
}

}  // namespace lapidary
