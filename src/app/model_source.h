// ModelSource: which folder a --model value names, and everything a text command needs from it.
#ifndef LAPIDARY_APP_MODEL_SOURCE_H_
#define LAPIDARY_APP_MODEL_SOURCE_H_

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "engine/engine.h"
#include "model/config.h"
#include "text/chat_template.h"
#include "text/prompt_ids.h"
#include "text/tokenizer.h"

namespace lapidary {

// The folder of `name`: a directory, or org/name in the local Hub cache; empty: the shipped pebble,
// beside the executable (../models) or under ../share/lapidary/models, never by the working
// directory. Throws StartupError naming what was tried.
std::filesystem::path FindModel(const std::string& name);

// Which chat template a folder asks for: its own if known, else the nearest, and a sentence about
// it.
struct TemplateChoice {
  TemplateRevision revision;
  std::string reason;
};
TemplateChoice ChooseTemplate(const std::filesystem::path& model_dir, const ModelConfig& config);

// End ids: generation_config.json's, and <eos>, <turn|>, <|tool_response> by content where there is
// a tokenizer.
EngineOptions WithModelIds(EngineOptions options, const ModelConfig& config,
                           const GenerationConfig& generation, const Tokenizer* tokenizer);

// MemAvailable of this machine.
uint64_t AvailableMemoryBytes();

template <typename T>
T OrThrow(Result<T> result) {
  if (!result.ok()) throw StartupError(result.error().message);
  return std::move(result).value();
}

}  // namespace lapidary

#endif  // LAPIDARY_APP_MODEL_SOURCE_H_
