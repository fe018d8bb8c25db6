// Choice: one answer being generated: draws its tokens, knows when it ends, keeps its news until
// they are delivered.
#ifndef LAPIDARY_ENGINE_CHOICE_H_
#define LAPIDARY_ENGINE_CHOICE_H_

#include <memory>
#include <span>
#include <vector>

#include "engine/request.h"
#include "engine/scheduler.h"
#include "ops/sampling.h"

namespace lapidary {

struct LiveRequest {
  Request request;
  TokenSink sink;
  int num_live = 0;  // choices that have not ended
};

// Ids the whole engine treats alike.
struct EngineIds {
  std::vector<int32_t> end_ids, suppress_ids;
};

class Choice {
 public:
  Choice(std::shared_ptr<LiveRequest> live, int index, int max_length, const EngineIds& ids);

  // logits are of rows.num_outputs rows of V; history the sequence so far. Draws a token if the
  // plan said so. True when the choice has ended.
  bool Advance(const PlannedRows& rows, const float* logits, std::span<const int32_t> history,
               Sampler& sampler, int vocab_size);
  // Ends it now with this reason.
  void End(FinishReason reason) { event_.finish = reason; }
  bool has_news() const;
  TokenEvent TakeEvent();

  LiveRequest& live() { return *live_; }
  int index() const { return index_; }
  int32_t last_token() const { return last_token_; }

 private:
  void ScorePrompt(const PlannedRows& rows, const float* logits, size_t vocab);
  void Draw(std::span<const float> logits, std::span<const int32_t> history, Sampler& sampler);
  void CheckEnd(int32_t token, size_t length);
  TokenLogprobs LogprobsOf(std::span<const float> logits, int32_t token, int num_top,
                           bool asked) const;

  std::shared_ptr<LiveRequest> live_;
  int index_;
  size_t max_length_;
  const EngineIds& ids_;
  std::vector<int32_t> stops_;  // all ids that end it
  int num_generated_ = 0;
  int32_t last_token_ = -1;
  std::vector<std::optional<TokenLogprobs>> prompt_logprobs_;
  TokenEvent event_;
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_CHOICE_H_
