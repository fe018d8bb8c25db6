// The loader on good checkpoints in every form, and on files that change under it.
#include "model/loader.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include "checkpoints/tiny_checkpoint.h"
#include "io/json.h"
#include "ops/cpu/cpu_ops.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Bytes(const Tensor& tensor) {
  return {static_cast<const char*>(tensor.data),
          static_cast<size_t>(tensor.num_elements() * SizeOf(tensor.dtype))};
}

const RawTensor& Named(const std::vector<RawTensor>& tensors, const std::string& name) {
  for (const RawTensor& tensor : tensors)
    if (tensor.name == name) return tensor;
  throw std::out_of_range(name);
}

class LoaderTest : public ::testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Checkpoint> Load(const FolderFiles& files) {
    auto loaded = LoadCheckpoint(scratch_.Write("model", files), {});
    EXPECT_TRUE(loaded.ok()) << loaded.error().message;
    return loaded.ok() ? std::move(loaded).value() : nullptr;
  }
  // Every layer's tensors hold the bytes of the file.
  void ExpectHolds(const Checkpoint& checkpoint, const std::vector<RawTensor>& tensors) {
    const std::string prefix = checkpoint.config.is_drafter ? "model." : "model.language_model.";
    EXPECT_EQ(Bytes(checkpoint.weights.embed), Named(tensors, prefix + "embed_tokens.weight").data);
    for (size_t i = 0; i < checkpoint.weights.layers.size(); ++i) {
      const LayerWeights& layer = checkpoint.weights.layers[i];
      const std::string at = prefix + "layers." + std::to_string(i) + ".";
      EXPECT_EQ(Bytes(layer.qkv.blocks[0]), Named(tensors, at + "self_attn.q_proj.weight").data);
      EXPECT_EQ(Bytes(layer.gate_up.blocks[1]), Named(tensors, at + "mlp.up_proj.weight").data);
      EXPECT_EQ(Bytes(layer.post_mlp_norm),
                Named(tensors, at + "post_feedforward_layernorm.weight").data);
      const LayerConfig& config = checkpoint.config.layers[i];
      EXPECT_EQ(layer.qkv.num_blocks, !config.owns_kv ? 1 : config.k_eq_v ? 2 : 3);
      EXPECT_EQ(layer.k_norm.empty(), !config.owns_kv);
      if (checkpoint.config.moe.num_experts == 0) continue;
      EXPECT_EQ(Bytes(layer.moe.gate_up), Named(tensors, at + "experts.gate_up_proj").data);
    }
    if (!checkpoint.config.is_drafter) return;
    EXPECT_EQ(Bytes(checkpoint.weights.token_ordering),
              Named(tensors, "masked_embedding.token_ordering").data);
  }
  ScratchFolder scratch_;
};

TEST_P(LoaderTest, SingleFile) {
  const FolderFiles files = TinyCheckpoint(GetParam());
  const auto checkpoint = Load(files);
  ASSERT_TRUE(checkpoint);
  ExpectHolds(*checkpoint, TinyTensors(files.at("config.json")));
}

TEST_P(LoaderTest, Shards) {
  const FolderFiles files = TinyShardedCheckpoint(GetParam(), 5);
  const auto checkpoint = Load(files);
  ASSERT_TRUE(checkpoint);
  ExpectHolds(*checkpoint, TinyTensors(files.at("config.json")));
}

// A header of odd length puts every tensor at an odd address.
// What a GPU gets, here into other memory of the host.
TEST_P(LoaderTest, CopiedToTheDeviceOfOps) {
  const FolderFiles files = TinyShardedCheckpoint(GetParam(), 3);
  LoadOptions options;
  options.ops = MakeCpuOps(1);
  uint64_t done = 0, total = 0;
  options.progress = [&](uint64_t done_bytes, uint64_t total_bytes) {
    done = done_bytes;
    total = total_bytes;
  };
  const auto loaded = LoadCheckpoint(scratch_.Write("model", files), options);
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  const Checkpoint& checkpoint = *loaded.value();
  EXPECT_EQ(checkpoint.ops, options.ops);
  EXPECT_EQ(done, total);
  EXPECT_EQ(total, checkpoint.weight_bytes);
  ExpectHolds(checkpoint, TinyTensors(files.at("config.json")));
  const auto mapped = Load(files);
  for (size_t i = 0; i < mapped->weights.layers.size(); ++i)
    EXPECT_EQ(checkpoint.weights.layers[i].layer_scalar, mapped->weights.layers[i].layer_scalar);
}

TEST_P(LoaderTest, DamagedTensorsAreNotCopied) {
  FolderFiles files = TinyCheckpoint(GetParam());
  std::vector<RawTensor> tensors = TinyTensors(files.at("config.json"));
  tensors.front().data[0] = tensors.front().data[1] = '\xff';
  files.at("model.safetensors") = SafetensorsBytes(tensors);
  LoadOptions options;
  options.ops = MakeCpuOps(1);
  const auto loaded = LoadCheckpoint(scratch_.Write("model", files), options);
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(loaded.error().message, HasSubstr(tensors.front().name + "' holds a NaN"));
}

TEST_P(LoaderTest, MisalignedTensorsAreCopied) {
  FolderFiles files = TinyCheckpoint(GetParam());
  std::string& bytes = files["model.safetensors"];
  uint64_t header = 0;
  bytes.copy(reinterpret_cast<char*>(&header), 8);
  bytes = SafetensorsBytes(bytes.substr(8, header) + " ", bytes.substr(8 + header));
  const auto checkpoint = Load(files);
  ASSERT_TRUE(checkpoint);
  ExpectHolds(*checkpoint, TinyTensors(files.at("config.json")));
}

TEST_P(LoaderTest, NamesOfReexports) {
  FolderFiles files = TinyCheckpoint(GetParam());
  const std::vector<RawTensor> published = TinyTensors(files.at("config.json"));
  for (const bool swapped : {false, true}) {
    std::vector<RawTensor> renamed = published;
    for (RawTensor& tensor : renamed) {
      if (!tensor.name.starts_with("model.")) continue;
      if (!swapped)
        tensor.name.erase(0, 6);
      else if (tensor.name.starts_with("model.language_model."))
        tensor.name.replace(0, 21, "language_model.model.");
    }
    files["model.safetensors"] = SafetensorsBytes(renamed);
    const auto checkpoint = Load(files);
    ASSERT_TRUE(checkpoint);
    ExpectHolds(*checkpoint, published);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, LoaderTest, ::testing::ValuesIn(kTinyFamilies),
                         [](const auto& family) { return family.param; });

using LoaderFormsTest = LoaderTest;

TEST_F(LoaderFormsTest, KvOfSharedLayersMayBeAbsentButNotWrong) {
  FolderFiles files = TinyCheckpoint("edge");
  const std::vector<RawTensor> published = TinyTensors(files.at("config.json"));
  std::vector<RawTensor> fewer, wrong = published;
  for (const RawTensor& tensor : published)
    if (tensor.name.find("layers.2.self_attn.k_") == std::string::npos) fewer.push_back(tensor);
  ASSERT_EQ(fewer.size() + 2, published.size());
  files["model.safetensors"] = SafetensorsBytes(fewer);
  EXPECT_TRUE(Load(files));
  for (RawTensor& tensor : wrong)
    if (tensor.name.ends_with("layers.2.self_attn.k_proj.weight")) tensor.shape = {16, 8};
  files["model.safetensors"] = SafetensorsBytes(wrong);
  const auto refused = LoadCheckpoint(scratch_.Write("model", files), {});
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message,
              AllOf(HasSubstr("layers.2.self_attn.k_proj.weight"), HasSubstr("[16, 8]"),
                    HasSubstr("[8, 16]"), HasSubstr("model.safetensors")));
}

TEST_F(LoaderFormsTest, ClipScalarsOfShapeOne) {
  FolderFiles files = TinyCheckpoint("edge");
  std::vector<RawTensor> tensors = TinyTensors(files.at("config.json"));
  int changed = 0;
  for (RawTensor& tensor : tensors) {
    if (!tensor.shape.empty()) continue;
    tensor.shape = {1};
    ++changed;
  }
  EXPECT_GT(changed, 20);
  files["model.safetensors"] = SafetensorsBytes(tensors);
  EXPECT_TRUE(Load(files));
}

TEST_F(LoaderFormsTest, ExpertsStoredApartAreNamed) {
  FolderFiles files = TinyCheckpoint("moe");
  std::vector<RawTensor> tensors = TinyTensors(files.at("config.json"));
  tensors.push_back(
      {"model.language_model.layers.0.experts.0.gate_proj.weight", "BF16", {1}, "ab"});
  files["model.safetensors"] = SafetensorsBytes(tensors);
  const auto refused = LoadCheckpoint(scratch_.Write("model", files), {});
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message,
              AllOf(HasSubstr("experts.0.gate_proj"), HasSubstr("convert it")));
}

// The map's pages of a file cut to nothing fault at the next read.
TEST_F(LoaderFormsTest, FileCutWhileItIsReadIsNamed) {
  const fs::path folder = scratch_.Write("model", TinyCheckpoint("dense"));
  LoadOptions options;
  options.progress = [&](uint64_t, uint64_t) { fs::resize_file(folder / "model.safetensors", 0); };
  const auto refused = LoadCheckpoint(folder, options);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message,
              AllOf(HasSubstr("model.safetensors"), HasSubstr("truncated")));
}

TEST_F(LoaderFormsTest, FileCutWhileItIsCopiedToADeviceIsNamed) {
  const fs::path folder = scratch_.Write("model", TinyCheckpoint("dense"));
  LoadOptions options;
  options.ops = MakeCpuOps(1);
  options.progress = [&](uint64_t, uint64_t) { fs::resize_file(folder / "model.safetensors", 0); };
  const auto refused = LoadCheckpoint(folder, options);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("model.safetensors ended after"));
}

TEST_F(LoaderFormsTest, FileThatChangedItsSizeIsNamed) {
  const fs::path folder = scratch_.Write("model", TinyCheckpoint("dense"));
  const uintmax_t size = fs::file_size(folder / "model.safetensors");
  LoadOptions options;
  options.progress = [&](uint64_t, uint64_t) {
    fs::resize_file(folder / "model.safetensors", size - 1);  // inside the last page: no fault
  };
  const auto refused = LoadCheckpoint(folder, options);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message,
              AllOf(HasSubstr("model.safetensors"), HasSubstr(std::to_string(size - 1))));
}

TEST_F(LoaderFormsTest, ProgressReachesTheTotal) {
  const fs::path folder = scratch_.Write("model", TinyCheckpoint("moe"));
  uint64_t last = 0, total = 0;
  LoadOptions options;
  options.progress = [&](uint64_t done, uint64_t all) {
    EXPECT_GT(done, last);
    last = done;
    total = all;
  };
  const auto loaded = LoadCheckpoint(folder, options);
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(last, total);
  EXPECT_EQ(total, loaded.value()->weight_bytes);
}

using LoaderDeathTest = LoaderTest;

TEST_F(LoaderDeathTest, FileCutAfterLoadingStopsTheProcess) {
  const fs::path folder = scratch_.Write("model", TinyCheckpoint("dense"));
  EXPECT_EXIT(
      {
        const auto loaded = LoadCheckpoint(folder, {});
        fs::resize_file(folder / "model.safetensors", 0);
        const volatile Bf16* embed = loaded.value()->weights.embed.bf16();
        _exit(embed[0].bits == 0 ? 1 : 2);
      },
      ::testing::ExitedWithCode(71), "model.safetensors could not be read");
}

}  // namespace
}  // namespace lapidary
