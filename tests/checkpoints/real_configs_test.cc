// The published configs: parsed to the numbers of the model cards, and the tensors that each asks
// for compared with the published list, in memory and as sparse files through the loader.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "checkpoints/tiny_checkpoint.h"
#include "io/json.h"
#include "io/mapped_file.h"
#include "model/loader.h"
#include "model/tensor_spec.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const fs::path kConfigs = fs::path(LAPIDARY_SOURCE_DIR) / "tests/data/configs";
const char* const kModels[] = {"E2B", "E4B", "26B-A4B", "31B"};

struct ListedTensor {
  std::string shape, dtype;
  bool operator==(const ListedTensor&) const = default;
};
using TensorList = std::map<std::string, ListedTensor>;

TensorList ReadList(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  TensorList list;
  while (std::getline(in, line)) {
    std::istringstream fields(line);
    std::string name;
    ListedTensor tensor;
    std::getline(fields, name, '\t');
    std::getline(fields, tensor.shape, '\t');
    std::getline(fields, tensor.dtype, '\t');
    list[name] = tensor;
  }
  return list;
}

class RealConfigTest : public ::testing::TestWithParam<std::string> {
 protected:
  fs::path folder() const { return kConfigs / ("gemma-4-" + GetParam()); }
};

TEST_P(RealConfigTest, AsksForTheListedTensors) {
  const auto config = ReadModelConfig(folder());
  ASSERT_TRUE(config.ok()) << config.error().message;
  TensorList asked;
  for (const TensorSpec& spec : TensorSpecs(config.value())) {
    std::string shape = ShapeText(spec.shape);
    std::erase(shape, ' ');
    asked[spec.name] = {shape, std::string(spec.dtype)};
  }
  const TensorList listed = ReadList(folder() / "tensors.tsv");
  ASSERT_GT(listed.size(), 40u);
  EXPECT_EQ(asked.size(), listed.size());
  for (const auto& [name, tensor] : listed) {
    const auto found = asked.find(name);
    ASSERT_NE(found, asked.end()) << name;
    EXPECT_EQ(found->second.shape, tensor.shape) << name;
    EXPECT_EQ(found->second.dtype, tensor.dtype) << name;
  }
}

// A real header over a hole; token_ordering alone has content, because it is checked.
void WriteSparse(const TensorList& list, const fs::path& path, size_t odd = 0) {
  json::object header;
  uint64_t end = 0, ordering_at = 0;
  int64_t ordering_count = 0;
  for (const auto& [name, tensor] : list) {
    const json::array shape = json::parse(tensor.shape).get_array();
    uint64_t bytes = tensor.dtype == "I64" ? 8 : 2;
    for (const json::value& dimension : shape) bytes *= dimension.to_number<uint64_t>();
    if (tensor.dtype == "I64") {
      ordering_at = end;
      ordering_count = shape[0].to_number<int64_t>();
    }
    header[name] = {
        {"dtype", tensor.dtype}, {"shape", shape}, {"data_offsets", {end, end + bytes}}};
    end += bytes;
  }
  std::string text = json::serialize(header);
  text.resize((text.size() + 7) / 8 * 8 + odd, ' ');
  const std::string bytes = SafetensorsBytes(text, "");
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  out.seekp(static_cast<std::streamoff>(bytes.size() + ordering_at));
  for (int64_t i = 0; i < ordering_count; ++i)
    out.write(reinterpret_cast<const char*>(&i), sizeof(i));
  out.close();
  fs::resize_file(path, bytes.size() + end);
}

TEST_P(RealConfigTest, LoadsAsSparseFile) {
  const ScratchFolder scratch;
  const TensorList list = ReadList(folder() / "tensors.tsv");
  fs::copy_file(folder() / "config.json", scratch.path() / "config.json");
  WriteSparse(list, scratch.path() / "model.safetensors");
  LoadOptions options;
  options.touch_all_bytes = false;
  const auto checkpoint = LoadCheckpoint(scratch.path(), options);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  const ModelConfig& config = checkpoint.value()->config;
  EXPECT_EQ(checkpoint.value()->weights.embed.rows(), 262144);
  EXPECT_EQ(static_cast<int>(checkpoint.value()->weights.layers.size()), config.num_layers());
}

// A model's size is not copied because its header has an odd length.
TEST(RealConfigs, LargeMisalignedFileIsRefused) {
  const ScratchFolder scratch;
  const fs::path folder = kConfigs / "gemma-4-31B-it";
  fs::copy_file(folder / "config.json", scratch.path() / "config.json");
  WriteSparse(ReadList(folder / "tensors.tsv"), scratch.path() / "model.safetensors", 1);
  LoadOptions options;
  options.touch_all_bytes = false;
  const auto refused = LoadCheckpoint(scratch.path(), options);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("no multiple of 2"));
}

std::vector<std::string> AllNames() {
  std::vector<std::string> names;
  for (const std::string model : kModels) {
    names.push_back(model + "-it");
    names.push_back(model + "-it-assistant");
  }
  return names;
}
INSTANTIATE_TEST_SUITE_P(Published, RealConfigTest, ::testing::ValuesIn(AllNames()),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(RealConfigs, UnifiedIsRefused) {
  for (const char* name : {"gemma-4-12B-it", "gemma-4-12B-it-assistant"}) {
    const auto config = ReadModelConfig(kConfigs / name);
    ASSERT_FALSE(config.ok());
    EXPECT_THAT(config.error().message, HasSubstr("12B Unified"));
    EXPECT_THAT(config.error().message, HasSubstr(name));
  }
}

// Expected numbers: the table of published dimensions (GEMMA4.md 1).
TEST(RealConfigs, LayersOfE2B) {
  const ModelConfig c = ReadModelConfig(kConfigs / "gemma-4-E2B-it").value();
  ASSERT_EQ(c.num_layers(), 35);
  EXPECT_EQ(c.ple_width, 256);
  EXPECT_EQ(c.window, 512);
  EXPECT_EQ(c.donor(LayerKind::kSliding), 13);
  EXPECT_EQ(c.donor(LayerKind::kFull), 14);
  EXPECT_EQ(c.embed_scale(), 39.25f);
  EXPECT_EQ(c.layers[14].mlp_width, 6144);
  EXPECT_EQ(c.layers[15].mlp_width, 12288);
  EXPECT_EQ(c.layers[15].kv_layer, 13);
  EXPECT_EQ(c.layers[34].kv_layer, 14);
  EXPECT_EQ(c.layers[34].head_dim, 512);
  EXPECT_EQ(c.layers[0].num_kv_heads, 1);
  EXPECT_THAT(c.eos_ids, ::testing::UnorderedElementsAre(1, 106));
}

TEST(RealConfigs, LayersOf26BAnd31B) {
  const ModelConfig moe = ReadModelConfig(kConfigs / "gemma-4-26B-A4B-it").value();
  EXPECT_EQ(moe.moe.num_experts, 128);
  EXPECT_EQ(moe.moe.top_k, 8);
  EXPECT_EQ(moe.moe.width, 704);
  EXPECT_EQ(moe.embed_scale(), 53.0f);
  const ModelConfig dense = ReadModelConfig(kConfigs / "gemma-4-31B-it").value();
  ASSERT_EQ(dense.num_layers(), 60);
  EXPECT_TRUE(dense.layers[5].k_eq_v);
  EXPECT_EQ(dense.layers[5].num_kv_heads, 4);
  EXPECT_EQ(dense.layers[5].head_dim, 512);
  EXPECT_EQ(dense.layers[4].num_kv_heads, 16);
  EXPECT_FALSE(dense.layers[4].k_eq_v);
  EXPECT_TRUE(dense.bidirectional_images);
}

TEST(RealConfigs, DraftersFitTheirModelsOnly) {
  for (const std::string target : kModels) {
    for (const std::string drafter : kModels) {
      const Status fits = CheckDrafterFits(
          ReadModelConfig(kConfigs / ("gemma-4-" + target + "-it")).value(),
          ReadModelConfig(kConfigs / ("gemma-4-" + drafter + "-it-assistant")).value());
      EXPECT_EQ(fits.ok(), target == drafter) << target << " " << drafter;
    }
  }
}

TEST(RealConfigs, GenerationConfig) {
  const GenerationConfig g = ReadGenerationConfig(kConfigs / "gemma-4-E2B-it", 262144).value();
  EXPECT_THAT(g.eos_ids, ::testing::ElementsAre(1, 106, 50));
  EXPECT_EQ(g.top_k, 64);
  EXPECT_FLOAT_EQ(g.top_p, 0.95f);
  const GenerationConfig unified =
      ReadGenerationConfig(kConfigs / "gemma-4-12B-it", 262144).value();
  EXPECT_THAT(unified.suppress_ids, ::testing::UnorderedElementsAre(258883, 258882));
  EXPECT_TRUE(ReadGenerationConfig(kConfigs / "gemma-4-12B-it-assistant", 262144).ok());
}

}  // namespace
}  // namespace lapidary
