#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "checkpoints/tiny_checkpoint.h"
#include "model/loader.h"
#include "model/solo_session.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/sampling.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const fs::path kPublished = fs::path(LAPIDARY_SOURCE_DIR) / "tests/data/configs";

// Published parameter counts: 31,273,088,876 of which the towers are not loaded.
TEST(Dummy, BeyondMemoryIsRefusedAtOnceWithBothCounts) {
  const auto start = std::chrono::steady_clock::now();
  const uint64_t available = uint64_t{24} << 30;
  const auto refused = MakeDummyCheckpoint(kPublished / "gemma-4-31B-it", available);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("25769803776"));
  const uint64_t need = WeightBytes(ReadModelConfig(kPublished / "gemma-4-31B-it").value());
  EXPECT_THAT(refused.error().message, HasSubstr(std::to_string(need)));
  EXPECT_NEAR(static_cast<double>(need), 2 * 30'697e6, 2e6);  // text parameters, in millions
  EXPECT_LT(seconds.count(), 5.0);
}

// The element's rule of dummy.h written again, slowly: what any backend must reproduce.
float Reference(const std::string& name, uint64_t element, float centre, float half) {
  uint64_t key = 0xcbf29ce484222325u;
  for (const char c : name) {
    key ^= static_cast<unsigned char>(c);
    key *= 0x100000001b3u;
  }
  auto x = static_cast<uint32_t>(element / 2 + (key & 0xffffffffu));
  x ^= x >> 16;
  x *= 0x21f0aaadu;
  x ^= x >> 15;
  x ^= static_cast<uint32_t>(key >> 32);
  x *= 0x735a2d97u;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  const uint32_t lane = element % 2 == 0 ? x % 65536 : x / 65536;
  const float product = (static_cast<float>(lane) - 32767.5f) * (half / 32767.5f);
  return RoundToBf16(product + centre);
}

TEST(Dummy, ElementsAreAFunctionOfNameAndIndex) {
  const ScratchFolder scratch;
  const fs::path folder = scratch.Write("moe", {{"config.json", TinyConfig("moe")}});
  const auto made = MakeDummyCheckpoint(folder, 1 << 30);
  ASSERT_TRUE(made.ok()) << made.error().message;
  const ModelWeights& w = made.value()->weights;
  const float half = static_cast<float>(0.25 * std::sqrt(3.0));  // hidden 16: deviation 1/4
  for (int64_t i = 0; i < w.embed.num_elements(); ++i)
    ASSERT_EQ(ToFloat(w.embed.bf16()[i]), Reference("model.language_model.embed_tokens.weight",
                                                    static_cast<uint64_t>(i), 0, half))
        << i;
  // A tensor of four elements is all tail; deviation of scores 2.1 over the root of the head
  // size 8.
  const auto low = static_cast<float>(1.3 / std::sqrt(8.0)),
             high = static_cast<float>(2.9 / std::sqrt(8.0));
  for (int64_t i = 0; i < 8; ++i)
    ASSERT_NEAR(ToFloat(w.layers[1].k_norm.bf16()[i]),
                Reference("model.language_model.layers.1.self_attn.k_norm.weight",
                          static_cast<uint64_t>(i), (low + high) / 2, (high - low) / 2),
                1e-2)
        << i;
}

TEST(Dummy, EveryFamilyIsFinite) {
  const ScratchFolder scratch;
  for (const std::string& family : kTinyFamilies) {
    const fs::path folder = scratch.Write(family, {{"config.json", TinyConfig(family)}});
    const auto made = MakeDummyCheckpoint(folder, 1 << 30);
    ASSERT_TRUE(made.ok()) << made.error().message;
    const ModelWeights& w = made.value()->weights;
    for (const LayerWeights& layer : w.layers) {
      EXPECT_GE(layer.layer_scalar, 0.59f);
      EXPECT_LE(layer.layer_scalar, 1.11f);
      double sum = 0, squares = 0;
      const Tensor& down = layer.down.blocks[0];
      for (int64_t i = 0; i < down.num_elements(); ++i) {
        const double value = ToFloat(down.bf16()[i]);
        sum += value;
        squares += value * value;
      }
      const auto count = static_cast<double>(down.num_elements());
      EXPECT_NEAR(sum / count, 0, 0.1);
      EXPECT_NEAR(squares / count * static_cast<double>(down.cols()), 1, 0.3);
    }
    if (family != "assistant") {
      const std::unique_ptr<Ops> ops = MakeCpuOps(1);
      SoloSession session(*made.value(), nullptr, *ops, {.max_tokens = 64, .max_chunk = 32});
      std::vector<int32_t> tokens(32);
      std::iota(tokens.begin(), tokens.end(), 0);
      const StepOutput out = session.Append(tokens, true);
      const std::span logits(out.logits.f32(), static_cast<size_t>(out.logits.num_elements()));
      EXPECT_TRUE(AllFinite(logits)) << family;
      EXPECT_NE(*std::max_element(logits.begin(), logits.end()), 0.0f);
      continue;
    }
    std::vector<bool> seen(32);
    for (int i = 0; i < 32; ++i) seen.at(static_cast<size_t>(w.token_ordering.i64()[i])) = true;
    EXPECT_EQ(std::count(seen.begin(), seen.end(), true), 32);
  }
}

}  // namespace
}  // namespace lapidary
