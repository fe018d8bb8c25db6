#include "app/model/engine_adapter.h"

#include <chrono>

namespace lapidary {
namespace {

// How long the engine may be silent while it has work; a slow step beats after every layer.
constexpr int64_t kStallMs = 3000;

}  // namespace

bool EngineAdapter::MakesProgress() const {
  const EngineStats stats = engine_.stats();
  const int64_t now = std::chrono::duration_cast<std::chrono::milliseconds>(
                          std::chrono::steady_clock::now().time_since_epoch())
                          .count();
  return stats.num_running + stats.num_queued == 0 || now - stats.last_progress_ms < kStallMs;
}

std::shared_ptr<Backend> MakeBackend(LoadedModel& model, const EngineOptions& options) {
  auto backend = std::make_shared<Backend>();
  backend->engine =
      std::make_shared<EngineAdapter>(std::move(model.target), std::move(model.drafter), options);
  backend->tokenizer = model.tokenizer;
  backend->defaults = {model.generation.temperature, model.generation.top_k,
                       model.generation.top_p};
  backend->chat_template = model.chat.revision;
  backend->chat_template_text = model.chat.text;
  return backend;
}

}  // namespace lapidary
