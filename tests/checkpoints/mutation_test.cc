// Damaged checkpoints: each is refused with a message that names the file, or loads a map that
// agrees with its config; none crashes, none allocates more than 64 MiB.
#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <set>
#include <string>

#include "checkpoints/mutations.h"
#include "io/safetensors.h"
#include "model/loader.h"
#include "tests/support/rounds.h"

namespace {
std::atomic<int64_t> live_bytes{0}, peak_bytes{0};
}  // namespace

// Counts what the program holds; the standard library's other forms come down to these two.
void* operator new(size_t size) {
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  const int64_t live = live_bytes += static_cast<int64_t>(malloc_usable_size(memory));
  int64_t peak = peak_bytes;
  while (peak < live && !peak_bytes.compare_exchange_weak(peak, live)) {
  }
  return memory;
}
void operator delete(void* memory) noexcept {
  if (memory != nullptr) live_bytes -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }

namespace lapidary {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxBytes = int64_t{64} << 20;

// Reads every byte of a tensor that must have this shape.
void ReadWhole(const Tensor& tensor, int64_t rows, int64_t cols) {
  ASSERT_FALSE(tensor.empty());
  ASSERT_EQ(tensor.rows(), rows);
  ASSERT_EQ(tensor.cols(), cols);
  const auto* bytes = static_cast<const volatile unsigned char*>(tensor.data);
  // Whoever reads beyond the map ends here, by a signal or a sanitizer.
  for (int64_t i = 0; i < tensor.num_elements() * SizeOf(tensor.dtype); ++i)
    static_cast<void>(bytes[i]);
}

void ExpectMapFitsConfig(const Checkpoint& checkpoint) {
  const ModelConfig& c = checkpoint.config;
  const ModelWeights& w = checkpoint.weights;
  ReadWhole(w.embed, c.vocab_size, c.hidden);
  ReadWhole(w.final_norm, c.hidden, 1);
  ASSERT_EQ(w.layers.size(), c.layers.size());
  for (size_t i = 0; i < c.layers.size(); ++i) {
    const LayerConfig& layer = c.layers[i];
    const LayerWeights& weights = w.layers[i];
    ReadWhole(weights.qkv.blocks[0], int64_t{c.num_heads} * layer.head_dim, c.hidden);
    for (int block = 1; block < weights.qkv.num_blocks; ++block)
      ReadWhole(weights.qkv.blocks[static_cast<size_t>(block)],
                int64_t{layer.num_kv_heads} * layer.head_dim, c.hidden);
    ReadWhole(weights.q_norm, layer.head_dim, 1);
    ReadWhole(weights.o.blocks[0], c.hidden, int64_t{c.num_heads} * layer.head_dim);
    ReadWhole(weights.gate_up.blocks[0], layer.mlp_width, c.hidden);
    ReadWhole(weights.gate_up.blocks[1], layer.mlp_width, c.hidden);
    ReadWhole(weights.down.blocks[0], c.hidden, layer.mlp_width);
    if (c.moe.num_experts == 0) continue;
    ReadWhole(weights.moe.gate_up, c.moe.num_experts, int64_t{2} * c.moe.width * c.hidden);
    ReadWhole(weights.moe.down, c.moe.num_experts, int64_t{c.moe.width} * c.hidden);
  }
  if (c.centroids.num_centroids == 0) return;
  ReadWhole(w.token_ordering, c.vocab_size, 1);
  for (int64_t i = 0; i < c.vocab_size; ++i) {
    ASSERT_GE(w.token_ordering.i64()[i], 0);
    ASSERT_LT(w.token_ordering.i64()[i], c.vocab_size);
  }
}

// Loads and judges; true when it was refused.
bool LoadAndJudge(const fs::path& folder, const Verdict& verdict) {
  peak_bytes = live_bytes.load();
  const int64_t before = live_bytes;
  const auto start = std::chrono::steady_clock::now();
  const auto loaded = LoadCheckpoint(folder, {});
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(peak_bytes - before, kMaxBytes);
  EXPECT_LT(seconds.count(), 2.0);
  if (loaded.ok()) {
    EXPECT_FALSE(verdict.must_refuse) << "loaded, though " << verdict.names << " is damaged";
    ExpectMapFitsConfig(*loaded.value());
    return false;
  }
  const std::string& message = loaded.error().message;
  EXPECT_NE(message.find(folder.string()), message.npos) << message;
  EXPECT_NE(message.find(verdict.names), message.npos) << message << "\nwanted " << verdict.names;
  EXPECT_LT(message.size(), 1500u) << message;
  return true;
}

TEST(Mutations, EachIsRefusedByNameOrLoadsAMapThatFitsItsConfig) {
  const ScratchFolder scratch;
  const std::vector<Mutation>& kinds = Mutations();
  ASSERT_GE(kinds.size(), 25u);
  std::vector<FolderFiles> good;
  good.reserve(std::size(kTinyFamilies));
  for (const std::string& family : kTinyFamilies) good.push_back(TinyCheckpoint(family));
  Random random(20260405);
  const int num_mutations = Rounds(500);
  int refused = 0;
  for (int i = 0; i < num_mutations && !::testing::Test::HasFailure(); ++i) {
    const Mutation& mutation = kinds[static_cast<size_t>(i) % kinds.size()];
    const size_t family = static_cast<size_t>(i) / kinds.size() % good.size();
    SCOPED_TRACE(mutation.name + " of " + kTinyFamilies[family] + ", mutation " +
                 std::to_string(i));
    FolderFiles files = good[family];
    const Verdict verdict = mutation.apply(files, random);
    refused += LoadAndJudge(scratch.Write("model", files), verdict) ? 1 : 0;
  }
  RecordProperty("refused", refused);
  printf("%d mutations of %zu kinds: %d refused, %d loaded\n", num_mutations, kinds.size(), refused,
         num_mutations - refused);
  EXPECT_GT(refused, num_mutations * 3 / 4);
}

// Every bit of a header flipped, every length cut: in memory, without the loader.
TEST(Mutations, EveryBitAndEveryLengthOfAHeader) {
  const std::string good = TinyCheckpoint("assistant").at("model.safetensors");
  const auto parse = [](const std::string& bytes) {
    return ParseSafetensorsHeader(std::as_bytes(std::span(bytes)), bytes.size(), "file");
  };
  ASSERT_TRUE(parse(good).ok());
  const auto step = static_cast<size_t>(std::max(1, 100 / Rounds(100)));
  for (size_t length = 0; length < good.size(); length += step) {
    const auto cut = parse(good.substr(0, length));
    ASSERT_FALSE(cut.ok()) << length;
    ASSERT_NE(cut.error().message.find("file"), std::string::npos);
  }
  std::string flipped = good;
  for (size_t bit = 0; bit < 4096 * 8 && bit / 8 < good.size(); bit += step) {
    flipped[bit / 8] = static_cast<char>(good[bit / 8] ^ (1 << bit % 8));
    const auto parsed = parse(flipped);
    flipped[bit / 8] = good[bit / 8];
    if (!parsed.ok()) continue;
    for (const auto& [name, entry] : parsed.value()) {
      ASSERT_LE(entry.offset, good.size());
      ASSERT_LE(entry.bytes, good.size() - entry.offset) << name;
    }
  }
}

}  // namespace
}  // namespace lapidary
