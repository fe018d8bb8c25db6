#include "app/model_source.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "io/mapped_file.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxTemplateBytes = 4 << 20;

bool HoldsModel(const fs::path& dir) {
  std::error_code code;
  return fs::exists(dir / "config.json", code);
}

fs::path Executable() {
  std::error_code code;
  return fs::read_symlink("/proc/self/exe", code);
}

// The Hub's cache in the user's home as the user database knows it:
// <home>/.cache/huggingface/hub/models--org--name/snapshots/<rev>.
std::optional<fs::path> FindInHubCache(const std::string& name) {
  const passwd* user = getpwuid(getuid());
  if (user == nullptr || std::count(name.begin(), name.end(), '/') != 1) return std::nullopt;
  std::string folder = "models--" + name;
  folder.replace(folder.find('/'), 1, "--");
  const fs::path snapshots =
      fs::path(user->pw_dir) / ".cache/huggingface/hub" / folder / "snapshots";
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(snapshots, code))
    if (HoldsModel(entry.path())) return entry.path();
  return std::nullopt;
}

}  // namespace

uint64_t AvailableMemoryBytes() {
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  uint64_t kib = 0;
  while (file >> key >> kib && std::getline(file, unit))
    if (key == "MemAvailable:") return kib * 1024;
  throw StartupError("cannot read MemAvailable of /proc/meminfo");
}

fs::path FindModel(const std::string& name) {
  if (!name.empty()) {
    if (HoldsModel(name)) return name;
    if (const auto cached = FindInHubCache(name)) return *cached;
    throw StartupError(fmt::format(
        "no model at '{}': it is neither a folder with a config.json nor in the local Hub cache; "
        "nothing is downloaded",
        name));
  }
  const fs::path bin = Executable().parent_path();
  for (const fs::path& dir :
       {bin.parent_path() / "models/pebble", bin.parent_path() / "share/lapidary/models/pebble"})
    if (HoldsModel(dir)) return dir;
  throw StartupError(
      fmt::format("the shipped model is not beside the program ({}); give one with --model DIR",
                  (bin.parent_path() / "models/pebble").string()));
}

TemplateChoice ChooseTemplate(const fs::path& model_dir, const ModelConfig& config) {
  const TemplateRevision nearest = DefaultTemplate(config.ple_width > 0);
  std::error_code code;
  const fs::path path = model_dir / "chat_template.jinja";
  if (!fs::exists(path, code))
    return {nearest, fmt::format("no chat_template.jinja, using {}", TemplateName(nearest))};
  const auto text = ReadFile(path, kMaxTemplateBytes);
  if (text.ok())
    if (const auto known = RecogniseTemplate(text.value()))
      return {*known, fmt::format("chat_template.jinja is {}", TemplateName(*known))};
  return {nearest, fmt::format("chat_template.jinja is not known, using the nearest: {}",
                               TemplateName(nearest))};
}

EngineOptions WithModelIds(EngineOptions options, const ModelConfig& config,
                           const GenerationConfig& generation, const Tokenizer* tokenizer) {
  std::vector<int32_t>& ends = options.end_ids;
  const auto add = [&](int32_t id) {
    if (id < config.vocab_size && std::find(ends.begin(), ends.end(), id) == ends.end())
      ends.push_back(id);
  };
  for (const int id : generation.eos_ids) add(id);
  for (const int id : config.eos_ids) add(id);
  if (tokenizer != nullptr)
    for (const char* content : {"<eos>", "<turn|>", "<|tool_response>"})
      if (const auto id = tokenizer->Find(content)) add(*id);
  options.suppress_ids.assign(generation.suppress_ids.begin(), generation.suppress_ids.end());
  return options;
}

}  // namespace lapidary
