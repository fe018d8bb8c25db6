#include "app/proc.h"

#include <fstream>

namespace lapidary {

namespace fs = std::filesystem;

std::string ProcValue(const fs::path& file, std::string_view name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(name)) continue;
    const size_t at = line.find_first_not_of(" \t", line.find(':') + 1);
    if (line.find(':') != std::string::npos && at != std::string::npos) return line.substr(at);
  }
  return "";
}

std::vector<std::string> GpuNames() {
  std::vector<std::string> names;
  std::error_code code;
  for (const auto& gpu : fs::directory_iterator("/proc/driver/nvidia/gpus", code))
    names.push_back(ProcValue(gpu.path() / "information", "Model"));
  return names;
}

}  // namespace lapidary
