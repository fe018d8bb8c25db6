// Which folder a --model value names, and which drafter belongs to it. Nothing is downloaded.
#ifndef LAPIDARY_APP_MODEL_FIND_MODEL_H_
#define LAPIDARY_APP_MODEL_FIND_MODEL_H_

#include <filesystem>
#include <optional>
#include <string>

#include "model/config.h"

namespace lapidary {

// <home>/.cache/huggingface/hub, the home as the user database knows it; empty: there is none.
std::filesystem::path DefaultHubDir();

// The folder of org/name in a Hub cache: the snapshot that refs/main names, else the newest one.
std::optional<std::filesystem::path> FindInHubCache(const std::filesystem::path& hub_dir,
                                                    const std::string& name);

// The shipped pebble beside the executable (../models) or under ../share/lapidary/models, never by
// the working directory. Throws StartupError.
std::filesystem::path FindShippedModel(const std::filesystem::path& executable);

// The folder of `name`: a directory, or org/name in the Hub cache; empty: the shipped pebble.
// Throws StartupError naming what was tried.
std::filesystem::path FindModel(const std::string& name,
                                const std::filesystem::path& hub_dir = DefaultHubDir());

// The drafter of a target, if any, and a clause that says where it is or why there is none.
struct DrafterChoice {
  std::optional<std::filesystem::path> dir;
  std::string reason;
};

// Looks at MODEL-assistant beside the target, then for name-assistant in the Hub cache. A folder is
// taken for what its config.json says it is, and only if it fits the target.
DrafterChoice FindDrafter(const std::filesystem::path& target_dir, const ModelConfig& target,
                          const std::filesystem::path& hub_dir = DefaultHubDir());

}  // namespace lapidary

#endif  // LAPIDARY_APP_MODEL_FIND_MODEL_H_
