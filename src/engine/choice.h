// Choice: one answer being generated: takes what a step drew for it, knows when it ends, keeps its
// news until they are delivered.
#ifndef LAPIDARY_ENGINE_CHOICE_H_
#define LAPIDARY_ENGINE_CHOICE_H_

#include <memory>
#include <vector>

#include "engine/request.h"
#include "engine/scheduler/scheduler.h"

namespace lapidary {

struct LiveRequest {
  Request request;
  TokenSink sink;
  int num_live = 0;  // choices that have not ended
};

class Choice {
 public:
  Choice(std::shared_ptr<LiveRequest> live, std::shared_ptr<const SequenceParams> params,
         const std::vector<int32_t>& end_ids);

  // Takes the news of its rows; tokens behind an end do not count.
  SequenceResult Take(const PlannedRows& rows, RowsNews&& news);
  // Ends it now with this reason.
  void End(FinishReason reason) { event_.finish = reason; }
  bool has_news() const;
  TokenEvent TakeEvent();

  const std::shared_ptr<LiveRequest>& live() const { return live_; }
  const std::shared_ptr<const SequenceParams>& params() const { return params_; }
  int index() const { return static_cast<int>(params_->choice); }
  int num_generated() const { return num_generated_; }
  RequestTimes& times() { return times_; }

 private:
  void AddToken(int32_t token);

  std::shared_ptr<LiveRequest> live_;
  std::shared_ptr<const SequenceParams> params_;
  std::vector<int32_t> ends_;  // ids that end it
  int num_generated_ = 0;
  bool scored_ = false;  // its prompt logprobs are complete
  std::vector<std::optional<TokenLogprobs>> prompt_logprobs_;
  int drafted_ = 0, accepted_ = 0;
  RequestTimes times_;
  TokenEvent event_;
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_CHOICE_H_
