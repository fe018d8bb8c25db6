#include "engine/choice.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace lapidary {

Choice::Choice(std::shared_ptr<LiveRequest> live, std::shared_ptr<const SequenceParams> params,
               const std::vector<int32_t>& end_ids)
    : live_(std::move(live)), params_(std::move(params)), ends_(params_->sampling.stop_ids) {
  if (!params_->sampling.ignore_eos) ends_.insert(ends_.end(), end_ids.begin(), end_ids.end());
}

SequenceResult Choice::Take(const PlannedRows& rows, RowsNews&& news) {
  SequenceResult result;
  result.id = rows.id;
  drafted_ += news.num_drafted;
  accepted_ += news.num_accepted;
  const bool prompt_done =
      rows.decode || rows.first_position + rows.num_rows >= params_->num_prompt;
  if (params_->sampling.num_prompt_logprobs >= 0 && index() == 0 && !scored_) {
    if (prompt_logprobs_.empty()) prompt_logprobs_.emplace_back();  // nothing predicts the first
    std::move(news.prompt_logprobs.begin(), news.prompt_logprobs.end(),
              std::back_inserter(prompt_logprobs_));
    if (prompt_done) {
      event_.prompt_logprobs = std::move(prompt_logprobs_);
      scored_ = true;
    }
  }
  size_t count = 0;
  for (; count < news.tokens.size() && event_.finish == FinishReason::kNone; ++count) {
    if (count < news.logprobs.size()) event_.logprobs.push_back(std::move(news.logprobs[count]));
    AddToken(news.tokens[count]);
  }
  result.tokens = std::move(news.tokens);
  result.tokens.resize(count);
  if (event_.finish == FinishReason::kNone) {
    if (news.not_finite) {
      End(FinishReason::kError);
      result.failed = true;
    } else if (news.exhausted) {  // the masks leave nothing to say
      End(FinishReason::kStop);
    } else if (prompt_done && params_->max_length == params_->num_prompt) {
      End(FinishReason::kLength);  // the prompt was only scored
    }
  }
  result.finished = event_.finish != FinishReason::kNone;
  return result;
}

void Choice::AddToken(int32_t token) {
  event_.tokens.push_back(token);
  ++num_generated_;
  if (std::find(ends_.begin(), ends_.end(), token) != ends_.end()) {
    event_.stop_id = token;
    End(FinishReason::kStop);
  } else if (params_->num_prompt + num_generated_ >= params_->max_length) {
    End(FinishReason::kLength);
  }
}

bool Choice::has_news() const {
  return !event_.tokens.empty() || event_.finish != FinishReason::kNone;
}

TokenEvent Choice::TakeEvent() {
  TokenEvent event = std::exchange(event_, {});
  event.request_id = live_->request.id;
  event.choice = index();
  event.drafted_tokens = drafted_;
  event.accepted_tokens = accepted_;
  event.times = times_;
  return event;
}

}  // namespace lapidary
