// ScriptedEngine: answers with a script, or with the prompt's own tokens.
#ifndef LAPIDARY_TESTS_SERVER_SCRIPTED_ENGINE_H_
#define LAPIDARY_TESTS_SERVER_SCRIPTED_ENGINE_H_

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "server/token_engine.h"

namespace lapidary {

class ScriptedEngine : public TokenEngine {
 public:
  explicit ScriptedEngine(int vocab_size) : vocab_size_(vocab_size) {}
  Status Submit(Request request, TokenSink sink) override {
    {
      const std::lock_guard lock(mutex_);
      last_request_ = request;
    }
    if (request.sampling.ignore_eos) {  // runs until cancelled
      const std::lock_guard lock(mutex_);
      sinks_[request.id] = std::move(sink);
      return Ok{};
    }
    for (size_t i = 0; i < script.size(); i += step_tokens) {
      TokenEvent event;
      event.request_id = request.id;
      const size_t end = std::min(script.size(), i + step_tokens);
      for (size_t j = i; j < end; ++j) {
        event.tokens.push_back(script[j]);
        if (j < logprobs.size()) event.logprobs.push_back(logprobs[j]);
      }
      if (i == 0) event.prompt_logprobs = prompt_logprobs;
      if (end == script.size() && !endless) event.finish = FinishReason::kStop;
      if (edit) edit(event);
      sink(std::move(event));
    }
    if (endless) {
      const std::lock_guard lock(mutex_);
      sinks_[request.id] = sink;
    }
    if (!script.empty()) return Ok{};
    for (int choice = 0; choice < request.num_choices; ++choice)
      for (size_t i = 1; i < request.prompt.size(); ++i) {
        TokenEvent event;
        event.choice = choice;
        event.tokens = {request.prompt[i]};
        const bool last =
            i + 1 == request.prompt.size() || i >= static_cast<size_t>(request.max_tokens);
        if (last) event.finish = FinishReason::kLength;
        sink(std::move(event));
        if (last) break;
      }
    return Ok{};
  }
  void Cancel(uint64_t id) override {
    TokenSink sink;
    {
      const std::lock_guard lock(mutex_);
      ++num_cancelled;
      const auto found = sinks_.find(id);
      if (found == sinks_.end()) return;
      sink = std::move(found->second);
      sinks_.erase(found);
    }
    TokenEvent event;
    event.request_id = id;
    event.finish = FinishReason::kAbort;
    sink(std::move(event));
  }
  void CancelChoice(uint64_t, int) override { ++num_cancelled_choices; }
  int vocab_size() const override { return vocab_size_; }
  int max_model_len() const override { return 4096; }
  int64_t FlushCache() override {
    ++num_flushes;
    return 7;
  }
  EngineStats stats() const override {
    const std::lock_guard lock(stats_mutex_);
    return stats_;
  }
  void SetStats(const EngineStats& stats) {
    const std::lock_guard lock(stats_mutex_);
    stats_ = stats;
  }
  std::atomic<int> num_flushes{0};
  Request last_request() {
    const std::lock_guard lock(mutex_);
    return last_request_;
  }
  std::atomic<int> num_cancelled{0}, num_cancelled_choices{0};
  std::vector<std::optional<TokenLogprobs>> prompt_logprobs;  // with the script's first token
  std::vector<TokenLogprobs> logprobs;                        // of the script's tokens
  std::vector<int32_t> script;  // the reply to any request, if not empty; set before the request
  size_t step_tokens = 1;       // of the script in an event
  std::function<void(TokenEvent&)> edit;  // sees each event of the script
  bool endless = false;  // after the script the reply goes on in silence until cancelled

 private:
  mutable std::mutex stats_mutex_;
  EngineStats stats_;  // guarded by stats_mutex_
  std::mutex mutex_;
  std::map<uint64_t, TokenSink> sinks_;  // guarded by mutex_
  int vocab_size_;
  Request last_request_;  // guarded by mutex_
};

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_SERVER_SCRIPTED_ENGINE_H_
