#include "app/model/find_model.h"

#include <fmt/core.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "base/result.h"
#include "io/mapped_file.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxRefBytes = 4096;

bool HoldsModel(const fs::path& dir) {
  std::error_code code;
  return fs::exists(dir / "config.json", code);
}

fs::path Executable() {
  std::error_code code;
  return fs::read_symlink("/proc/self/exe", code);
}

// The snapshot of one repository folder of a Hub cache.
std::optional<fs::path> FindSnapshot(const fs::path& repository) {
  if (const auto ref = ReadFile(repository / "refs/main", kMaxRefBytes); ref.ok()) {
    std::string revision = ref.value();
    revision.erase(std::find_if(revision.begin(), revision.end(),
                                [](char c) { return c == '\n' || c == '\r' || c == ' '; }),
                   revision.end());
    const bool is_name = !revision.empty() && revision.find('/') == std::string::npos;
    if (is_name && HoldsModel(repository / "snapshots" / revision))
      return repository / "snapshots" / revision;
  }
  std::optional<fs::path> newest;
  fs::file_time_type newest_time;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(repository / "snapshots", code)) {
    if (!HoldsModel(entry.path())) continue;
    const fs::file_time_type time = fs::last_write_time(entry.path(), code);
    if (newest && time <= newest_time) continue;
    newest = entry.path();
    newest_time = time;
  }
  return newest;
}

// The folder itself, without a last slash.
fs::path FullPath(const fs::path& dir) {
  std::error_code code;
  fs::path full = fs::absolute(dir, code).lexically_normal();
  return full.has_filename() ? full : full.parent_path();
}

// Where the drafter of a target may be, the likeliest first.
std::vector<fs::path> DrafterPlaces(const fs::path& target_dir, const fs::path& hub_dir) {
  const fs::path full = FullPath(target_dir);
  std::vector<fs::path> places = {full.string() + "-assistant"};
  std::error_code code;
  if (full.parent_path().filename() == "snapshots") {
    const fs::path repository = full.parent_path().parent_path();
    if (const auto found = FindSnapshot(repository.string() + "-assistant"))
      places.push_back(*found);
  }
  const std::string ending = "--" + full.filename().string() + "-assistant";
  for (const auto& entry : fs::directory_iterator(hub_dir, code))
    if (entry.path().filename().string().ends_with(ending))
      if (const auto found = FindSnapshot(entry.path())) places.push_back(*found);
  return places;
}

}  // namespace

fs::path DefaultHubDir() {
  const passwd* user = getpwuid(getuid());
  return user == nullptr ? fs::path() : fs::path(user->pw_dir) / ".cache/huggingface/hub";
}

std::optional<fs::path> FindInHubCache(const fs::path& hub_dir, const std::string& name) {
  const size_t slash = name.find('/');
  if (hub_dir.empty() || slash == 0 || slash + 1 >= name.size() ||
      std::count(name.begin(), name.end(), '/') != 1)
    return std::nullopt;
  return FindSnapshot(hub_dir /
                      ("models--" + name.substr(0, slash) + "--" + name.substr(slash + 1)));
}

fs::path FindShippedModel(const fs::path& executable) {
  // Without /proc the program does not know where it is; a relative path would look in the working
  // directory.
  if (!executable.is_absolute())
    throw StartupError(
        "the shipped model is found beside the program, and /proc/self/exe does not say where that "
        "is; give a model with --model DIR");
  const fs::path prefix = executable.parent_path().parent_path();
  for (const fs::path& dir : {prefix / "models/pebble", prefix / "share/lapidary/models/pebble"})
    if (HoldsModel(dir)) return dir;
  throw StartupError(
      fmt::format("the shipped model is not beside the program ({}); give one with --model DIR",
                  (prefix / "models/pebble").string()));
}

fs::path FindModel(const std::string& name, const fs::path& hub_dir) {
  if (name.empty()) return FindShippedModel(Executable());
  if (HoldsModel(name)) return name;
  if (const auto cached = FindInHubCache(hub_dir, name)) return *cached;
  std::error_code code;
  if (fs::is_directory(name, code))
    throw StartupError(fmt::format("'{}' is a folder without a config.json", name));
  throw StartupError(
      fmt::format("no model at '{}': it is neither a folder with a config.json nor in the Hub "
                  "cache {}; nothing is downloaded",
                  name, hub_dir.string()));
}

DrafterChoice FindDrafter(const fs::path& target_dir, const ModelConfig& target,
                          const fs::path& hub_dir) {
  std::string why_not;
  for (const fs::path& place : DrafterPlaces(target_dir, hub_dir)) {
    if (!HoldsModel(place)) continue;
    const auto config = ReadModelConfig(place);
    const auto refuse = [&](const std::string& why) {
      if (why_not.empty()) why_not = fmt::format("{} is not used: {}", place.string(), why);
    };
    if (!config.ok()) {
      refuse(config.error().message);
    } else if (!config.value().is_drafter) {
      refuse("its config.json is not an assistant's");
    } else if (const Status fits = CheckDrafterFits(target, config.value()); !fits.ok()) {
      refuse(fits.error().message);
    } else {
      const bool beside = place.parent_path() == FullPath(target_dir).parent_path();
      return {place, beside ? "beside the model" : "in the Hub cache"};
    }
  }
  if (!why_not.empty()) return {std::nullopt, why_not};
  return {std::nullopt, fmt::format("none: no {}-assistant beside the model, none in the Hub cache",
                                    FullPath(target_dir).filename().string())};
}

}  // namespace lapidary
