// EngineAdapter: the engine as the server and the chat see it.
#ifndef LAPIDARY_APP_MODEL_ENGINE_ADAPTER_H_
#define LAPIDARY_APP_MODEL_ENGINE_ADAPTER_H_

#include <memory>
#include <utility>

#include "app/model/load_model.h"
#include "engine/engine.h"
#include "server/openai/completion.h"
#include "server/token_engine.h"

namespace lapidary {

class EngineAdapter : public TokenEngine {
 public:
  EngineAdapter(std::unique_ptr<Checkpoint> target, std::unique_ptr<Checkpoint> drafter,
                const EngineOptions& options)
      : engine_(std::move(target), std::move(drafter), options) {}
  Status Submit(Request request, TokenSink sink) override {
    return engine_.Submit(std::move(request), std::move(sink));
  }
  void Cancel(uint64_t request_id) override { engine_.Cancel(request_id); }
  void CancelChoice(uint64_t request_id, int choice) override {
    engine_.CancelChoice(request_id, choice);
  }
  int vocab_size() const override { return engine_.config().vocab_size; }
  int max_model_len() const override { return engine_.max_model_len(); }
  int64_t FlushCache() override { return engine_.FlushCache(); }
  EngineStats stats() const override { return engine_.stats(); }

 private:
  Engine engine_;
};

// Takes the weights out of `model`. Throws StartupError.
std::shared_ptr<TokenEngine> StartEngine(LoadedModel& model, const EngineOptions& options);

// What is shared by all requests, but for the engine.
Backend BackendOf(const LoadedModel& model);

}  // namespace lapidary

#endif  // LAPIDARY_APP_MODEL_ENGINE_ADAPTER_H_
