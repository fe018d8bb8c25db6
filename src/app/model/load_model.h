// LoadModel: a model folder, its drafter and everything a text command needs beside the weights.
#ifndef LAPIDARY_APP_MODEL_LOAD_MODEL_H_
#define LAPIDARY_APP_MODEL_LOAD_MODEL_H_

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "engine/engine.h"
#include "model/config.h"
#include "model/loader.h"
#include "ops/gpu_ops.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace CLI {
class App;
}

namespace lapidary {

// Which chat template a folder asks for: its own if known, else the nearest, and a sentence about
// it.
struct TemplateChoice {
  TemplateRevision revision = TemplateRevision::kEdge;
  std::string reason;
  std::string text;  // the folder's own, or empty
};
TemplateChoice ChooseTemplate(const std::filesystem::path& model_dir, const ModelConfig& config);

// The flags by which every command names its model.
struct ModelFlags {
  std::string model, draft_model, hub_dir, load_format = "auto";
  std::optional<int> asked_drafts;                              // a burst, by whatever spelling
  int num_drafts() const { return asked_drafts.value_or(-1); }  // 0: none; -1: adaptive
  std::string algorithm;                                        // SGLang's name, if given
  std::optional<DraftPosition> draft_position;                  // none: measured
  BackendKind backend = BackendKind::kAuto;
  std::filesystem::path HubDir() const;
};
void AddModelFlags(CLI::App& app, ModelFlags& flags);  // which folders
void AddLoadFlags(CLI::App& app, ModelFlags& flags);   // what is made of them
void AddBackendFlag(CLI::App& app, BackendKind& backend);

struct LoadedModel {
  std::filesystem::path dir;
  std::unique_ptr<Checkpoint> target;
  std::unique_ptr<Checkpoint> drafter;  // null unless drafts are asked for
  std::string drafter_reason;           // a clause: where it is, or why there is none
  GenerationConfig generation;
  std::shared_ptr<const Tokenizer> tokenizer;  // null when the folder has none
  TemplateChoice chat;
};

// Throws StartupError. `options.progress` sees the target's bytes. Opens the GPU that the flags
// name unless `options` has one.
LoadedModel LoadModel(const ModelFlags& flags, LoadOptions options = {});

// The end ids of generation_config.json, of config.json, and those of <eos>, <turn|> and
// <|tool_response> by content; the suppressed ids; the drafts a
// burst and their position.
EngineOptions WithModel(EngineOptions options, const ModelFlags& flags, const LoadedModel& model);

// The tokenizer, for commands that cannot do without one. Throws StartupError.
const Tokenizer& NeedTokenizer(const LoadedModel& model);

template <typename T>
T OrThrow(Result<T> result) {
  if (!result.ok()) throw StartupError(result.error().message);
  return std::move(result).value();
}

}  // namespace lapidary

#endif  // LAPIDARY_APP_MODEL_LOAD_MODEL_H_
