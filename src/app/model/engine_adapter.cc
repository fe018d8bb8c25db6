#include "app/model/engine_adapter.h"

namespace lapidary {

std::shared_ptr<TokenEngine> StartEngine(LoadedModel& model, const EngineOptions& options) {
  return std::make_shared<EngineAdapter>(std::move(model.target), std::move(model.drafter),
                                         options);
}

Backend BackendOf(const LoadedModel& model) {
  Backend backend;
  backend.tokenizer = model.tokenizer;
  backend.defaults = {model.generation.temperature, model.generation.top_k, model.generation.top_p};
  backend.chat_template = model.chat.revision;
  backend.chat_template_text = model.chat.text;
  return backend;
}

}  // namespace lapidary
