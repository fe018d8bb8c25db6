// Tiny checkpoints of every family, made in memory: the good ones that tests load and damage.
#ifndef LAPIDARY_TESTS_CHECKPOINTS_TINY_CHECKPOINT_H_
#define LAPIDARY_TESTS_CHECKPOINTS_TINY_CHECKPOINT_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace lapidary {

inline const std::vector<std::string> kTinyFamilies = {"dense", "moe", "edge", "wide", "assistant"};

// config.json of a family; edge and dense in the published form, the others as transformers >= 5.17
// saves it.
std::string TinyConfig(const std::string& family);

struct RawTensor {
  std::string name, dtype;
  std::vector<int64_t> shape;
  std::string data;
};

// The tensors that `config` asks for, with finite numbers.
std::vector<RawTensor> TinyTensors(const std::string& config);
// A safetensors file of them.
std::string SafetensorsBytes(const std::vector<RawTensor>& tensors);
// The same from a header and data given as they are.
std::string SafetensorsBytes(const std::string& header, const std::string& data);

// A folder's files by name.
using FolderFiles = std::map<std::string, std::string>;
FolderFiles TinyCheckpoint(const std::string& family);
// The same in `num_shards` shards with an index.
FolderFiles TinyShardedCheckpoint(const std::string& family, size_t num_shards);

// A folder that goes away with the object.
class ScratchFolder {
 public:
  ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  ~ScratchFolder();
  const std::filesystem::path& path() const { return path_; }
  // Makes `name` hold exactly these files.
  std::filesystem::path Write(const std::string& name, const FolderFiles& files) const;

 private:
  std::filesystem::path path_;
};

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_CHECKPOINTS_TINY_CHECKPOINT_H_
