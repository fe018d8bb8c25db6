#include "app/model/engine_adapter.h"

namespace lapidary {
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
