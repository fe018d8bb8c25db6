// The four families with their published head and hidden sizes, and few layers.
#ifndef LAPIDARY_TESTS_GPU_SMALL_MODEL_H_
#define LAPIDARY_TESTS_GPU_SMALL_MODEL_H_

#include <filesystem>
#include <utility>

#include "base/result.h"

namespace lapidary {

struct SmallModel {
  const char* name;  // of the published model
  int num_layers, period, num_shared;
};
inline constexpr SmallModel kSmallModels[] = {{"gemma-4-E2B-it", 10, 5, 4},
                                              {"gemma-4-E4B-it", 12, 6, 4},
                                              {"gemma-4-26B-A4B-it", 6, 6, 0},
                                              {"gemma-4-31B-it", 6, 6, 0}};
inline constexpr int kSmallVocab = 8192;

// Writes config.json of the model into OUT/NAME, and that of its drafter into OUT/NAME-assistant,
// from the published ones in CONFIGS; returns the first folder. Throws StartupError.
std::filesystem::path WriteSmallModel(const std::filesystem::path& configs, const SmallModel& model,
                                      const std::filesystem::path& out);

template <typename T>
T OrThrow(Result<T> result) {
  if (!result.ok()) throw StartupError(result.error().message);
  return std::move(result).value();
}

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_GPU_SMALL_MODEL_H_
