#include "app/model/load_model.h"

#include <fmt/core.h>
#include <CLI/App.hpp>

#include <algorithm>
#include <map>

#include "app/model/find_model.h"
#include "io/json.h"
#include "io/mapped_file.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxTemplateBytes = 4 << 20;

// Several spellings may name the number; they must agree.
void AskDrafts(ModelFlags& flags, int num_drafts) {
  if (flags.asked_drafts && *flags.asked_drafts != num_drafts)
    throw CLI::ValidationError("speculation",
                               fmt::format("one flag asks for {} drafts a burst, another for {}",
                                           *flags.asked_drafts, num_drafts));
  flags.asked_drafts = num_drafts;
}

void ReadSpeculativeConfig(ModelFlags& flags, const std::string& text) {
  const auto fail = [](const std::string& why) {
    throw CLI::ValidationError("--speculative-config", why);
  };
  const Result<json::value> parsed = ParseJson(text, "the value");
  if (!parsed.ok()) fail(parsed.error().message);
  if (!parsed.value().is_object()) fail("the value must be an object");
  for (const auto& [key, value] : parsed.value().get_object()) {
    if (key == "method" && value == "mtp") continue;
    if (key == "model" && value.is_string())
      flags.draft_model = value.get_string();
    else if (key == "num_speculative_tokens" && value.is_int64() && value.get_int64() >= 0 &&
             value.get_int64() <= kMaxDrafts)
      AskDrafts(flags, static_cast<int>(value.get_int64()));
    else
      fail(fmt::format("'{}' is not understood with this value",
                       std::string_view(key.substr(0, 40))));
  }
}

std::unique_ptr<Checkpoint> LoadWeights(const ModelFlags& flags, const fs::path& dir,
                                        const LoadOptions& options) {
  if (flags.load_format != "dummy") return OrThrow(LoadCheckpoint(dir, options));
  const Device& device = options.ops != nullptr ? options.ops->device() : HostDevice();
  return OrThrow(MakeDummyCheckpoint(dir, static_cast<uint64_t>(device.free_bytes()), options.ops));
}

std::unique_ptr<Checkpoint> LoadDrafter(const ModelFlags& flags, const fs::path& dir,
                                        const Checkpoint& target) {
  LoadOptions options;
  options.ops = target.ops;
  auto drafter = LoadWeights(flags, dir, options);
  if (!drafter->config.is_drafter)
    throw StartupError(fmt::format("--draft-model {} is not an assistant", dir.string()));
  OrThrow(CheckDrafterFits(target.config, drafter->config));
  return drafter;
}

void ChooseDrafter(const ModelFlags& flags, LoadedModel& model) {
  DrafterChoice choice;
  if (flags.draft_model.empty()) {
    choice = FindDrafter(model.dir, model.target->config, flags.HubDir());
  } else {
    choice = {FindModel(flags.draft_model, flags.HubDir()), "--draft-model"};
  }
  model.drafter_reason = choice.reason;
  // A drafter that was named is checked even when it is not used.
  if (choice.dir && (flags.num_drafts() != 0 || !flags.draft_model.empty()))
    model.drafter = LoadDrafter(flags, *choice.dir, *model.target);
  if (choice.dir)
    model.drafter_reason = fmt::format("{}, {}", choice.dir->filename().string(), choice.reason);
  if (choice.dir) return;
  if (flags.num_drafts() > 0)
    throw StartupError(fmt::format("--speculative-num-steps {} needs a drafter: {}",
                                   flags.num_drafts(), choice.reason));
  if (!flags.algorithm.empty() && flags.num_drafts() != 0)
    throw StartupError(fmt::format("--speculative-algorithm {} needs a drafter: {}",
                                   flags.algorithm, choice.reason));
}

}  // namespace

TemplateChoice ChooseTemplate(const fs::path& model_dir, const ModelConfig& config) {
  const TemplateRevision nearest = DefaultTemplate(config.ple_width > 0);
  std::error_code code;
  const fs::path path = model_dir / "chat_template.jinja";
  if (!fs::exists(path, code))
    return {nearest, fmt::format("no chat_template.jinja, using {}", TemplateName(nearest)), ""};
  const std::string text = OrThrow(ReadFile(path, kMaxTemplateBytes));
  if (const auto known = RecogniseTemplate(text))
    return {*known, fmt::format("chat_template.jinja is {}", TemplateName(*known)), text};
  return {
      nearest,
      fmt::format("chat_template.jinja is not known, using the nearest: {}", TemplateName(nearest)),
      text};
}

fs::path ModelFlags::HubDir() const {
  return hub_dir.empty() ? DefaultHubDir() : fs::path(hub_dir);
}

void AddModelFlags(CLI::App& app, ModelFlags& flags) {
  app.add_option("--model,-m,--model-path", flags.model,
                 "folder, or org/name in the Hub cache (default: pebble)");
  app.add_option("--draft-model,--speculative-draft-model-path", flags.draft_model,
                 "the same of the drafter (default: MODEL-assistant)");
  app.add_option("--download-dir", flags.hub_dir, "the Hub cache (default: the Hub's own place)");
}

void AddBackendFlag(CLI::App& app, BackendKind& backend) {
  static const std::map<std::string, BackendKind> kNames = {
      {"auto", BackendKind::kAuto}, {"cpu", BackendKind::kCpu}, {"cuda", BackendKind::kCuda}};
  app.add_option("--backend,--device", backend, "auto: a GPU if there is one; cpu; cuda")
      ->transform(CLI::CheckedTransformer(kNames))
      ->option_text("NAME");
}

void AddLoadFlags(CLI::App& app, ModelFlags& flags) {
  app.add_option_function<int>(
         "--speculative-num-steps", [&](int steps) { AskDrafts(flags, steps); },
         "drafts a burst (0: none; default: adaptive)")
      ->check(CLI::Range(0, kMaxDrafts));
  app.add_option_function<int>(
         "--speculative-num-draft-tokens", [&](int tokens) { AskDrafts(flags, tokens - 1); },
         "the same and one, as SGLang counts")
      ->check(CLI::Range(1, kMaxDrafts + 1));
  app.add_option_function<std::vector<std::string>>(
         "--speculative-config",
         [&](const std::vector<std::string>& texts) {
           for (const std::string& text : texts) ReadSpeculativeConfig(flags, text);
         },
         R"(JSON: {"method": "mtp", "model": DIR, "num_speculative_tokens": 2})")
      ->allow_extra_args(false);
  app.add_option("--speculative-algorithm", flags.algorithm,
                 "NEXTN, EAGLE or FROZEN_KV_MTP: the drafter, which must be there")
      ->check(CLI::IsMember({"NEXTN", "EAGLE", "FROZEN_KV_MTP"}, CLI::ignore_case));
  app.add_option_function<std::string>(
         "--draft-position",
         [&](const std::string& name) {
           flags.draft_position = std::nullopt;
           if (name == "newest") flags.draft_position = DraftPosition::kNewest;
           if (name == "last-kv") flags.draft_position = DraftPosition::kLastKv;
         },
         "of drafts: newest, last-kv, or auto: the better one, measured (auto)")
      ->check(CLI::IsMember({"auto", "newest", "last-kv"}));
  app.add_flag_callback("--no-mtp", [&] { AskDrafts(flags, 0); }, "no drafts");
  AddBackendFlag(app, flags.backend);
  app.add_option("--load-format", flags.load_format, "auto, or dummy: random weights")
      ->check(CLI::IsMember({"auto", "dummy"}));
}

LoadedModel LoadModel(const ModelFlags& flags, LoadOptions options) {
  if (options.ops == nullptr) options.ops = OpenGpuOps(flags.backend);
  LoadedModel model;
  model.dir = FindModel(flags.model, flags.HubDir());
  model.target = LoadWeights(flags, model.dir, options);
  const ModelConfig& config = model.target->config;
  if (config.is_drafter)
    throw StartupError(
        fmt::format("{} is an assistant; give the model it belongs to", model.dir.string()));
  model.generation = OrThrow(ReadGenerationConfig(model.dir, config.vocab_size));
  std::error_code code;
  if (fs::exists(model.dir / "tokenizer.json", code))
    model.tokenizer = std::make_shared<const Tokenizer>(OrThrow(Tokenizer::Load(model.dir)));
  model.chat = ChooseTemplate(model.dir, config);
  ChooseDrafter(flags, model);
  return model;
}

EngineOptions WithModel(EngineOptions options, const ModelFlags& flags, const LoadedModel& model) {
  const ModelConfig& config = model.target->config;
  std::vector<int32_t>& ends = options.end_ids;
  const auto add = [&](int32_t id) {
    if (id < config.vocab_size && std::find(ends.begin(), ends.end(), id) == ends.end())
      ends.push_back(id);
  };
  for (const int id : model.generation.eos_ids) add(id);
  for (const int id : config.eos_ids) add(id);
  if (model.tokenizer != nullptr)
    for (const char* content : {"<eos>", "<turn|>", "<|tool_response>"})
      if (const auto id = model.tokenizer->Find(content)) add(*id);
  options.suppress_ids.assign(model.generation.suppress_ids.begin(),
                              model.generation.suppress_ids.end());
  options.num_draft_tokens = flags.num_drafts();
  options.draft_position = flags.draft_position;
  return options;
}

const Tokenizer& NeedTokenizer(const LoadedModel& model) {
  if (model.tokenizer == nullptr)
    throw StartupError(fmt::format("{} has no tokenizer.json", model.dir.string()));
  return *model.tokenizer;
}

}  // namespace lapidary
