// MeteredEngine: an engine whose requests are counted as their events pass.
#ifndef LAPIDARY_SERVER_MONITOR_METERED_ENGINE_H_
#define LAPIDARY_SERVER_MONITOR_METERED_ENGINE_H_

#include <memory>

#include "server/monitor/request_metrics.h"
#include "server/token_engine.h"

namespace lapidary {

class MeteredEngine : public TokenEngine {
 public:
  MeteredEngine(std::shared_ptr<TokenEngine> engine, std::shared_ptr<RequestMetrics> metrics);
  Status Submit(Request request, TokenSink sink) override;
  void Cancel(uint64_t request_id) override { engine_->Cancel(request_id); }
  // The caller saw a stop string.
  void CancelChoice(uint64_t request_id, int choice) override;
  int64_t FlushCache() override { return engine_->FlushCache(); }
  EngineStats stats() const override { return engine_->stats(); }
  // Until what waits now has started, at the rate of the last ends; 1 .. 60.
  int retry_after_s() const override;
  int vocab_size() const override { return engine_->vocab_size(); }
  int max_model_len() const override { return engine_->max_model_len(); }

 private:
  class Watch;
  struct Watches;
  std::shared_ptr<TokenEngine> engine_;
  std::shared_ptr<RequestMetrics> metrics_;
  std::shared_ptr<Watches> watches_;  // outlives this in the engine's sinks
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_MONITOR_METERED_ENGINE_H_
