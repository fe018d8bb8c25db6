#include "app/bench/bound.h"

#include <gtest/gtest.h>

#include <span>
#include <string>

namespace lapidary {
namespace {

ModelConfig ConfigOf(const std::string& name) {
  const Result<ModelConfig> config =
      ReadModelConfig(std::string(LAPIDARY_SOURCE_DIR "/tests/data/configs/") + name);
  EXPECT_TRUE(config.ok()) << name;
  return config.value();
}

struct Expected {
  const char* model;
  double read_gb_per_s, num_sequences, accept_length;
  double step_ms, chat_tok_per_s, summ_tok_per_s, alone_tok_per_s;
};

// 80 requests of 1000 (chat) or 8000 tokens (summ) and 1000 out, and one alone of 1000 and 256:
// computed apart from this program, from the published shapes, for 750 TFLOP/s.
constexpr Expected kPlain[] = {
    {"E2B", 3000, 80, 1, 2.48, 30599, 12587, 653},    {"E2B", 4590, 80, 1, 1.62, 45614, 17512, 999},
    {"E4B", 3000, 80, 1, 5.22, 13973, 5400, 320},     {"E4B", 4590, 80, 1, 3.41, 20426, 7173, 490},
    {"26B-A4B", 4590, 80, 1, 15.13, 5058, 3364, 582},
};
// Three drafts a step; the same prompts.
constexpr Expected kDrafts[] = {
    {"26B-A4B", 3000, 80, 2.84, 26.58, 7963, 0, 472},
    {"26B-A4B", 4590, 80, 2.84, 17.37, 11756, 5847, 723},
};

RunBound BoundFor(const Expected& expected, int num_requests, int prompt, int answer) {
  const std::string name = std::string("gemma-4-") + expected.model + "-it";
  const ModelWork target(ConfigOf(name), DType::kBf16, false, true);
  const ModelWork drafter(ConfigOf(name + "-assistant"), DType::kBf16, false, false);
  RunShape run;
  run.lengths.assign(static_cast<size_t>(num_requests), {prompt, answer});
  run.num_sequences = num_requests == 1 ? 1 : expected.num_sequences;
  run.accept_length = expected.accept_length;
  run.drafts_a_step = expected.accept_length > 1 ? 3 : 0;
  return BoundOf(run, target, &drafter, {expected.read_gb_per_s, 0, 750});
}

void ExpectNear(double value, double expected) {
  if (expected == 0) return;
  EXPECT_NEAR(value / expected, 1, 0.005) << value << " for " << expected;
}

void ExpectBounds(std::span<const Expected> table) {
  for (const Expected& expected : table) {
    SCOPED_TRACE(expected.model);
    const RunBound chat = BoundFor(expected, 80, 1000, 1000);
    ExpectNear(chat.step_ms, expected.step_ms);
    ExpectNear(chat.tok_per_s, expected.chat_tok_per_s);
    ExpectNear(BoundFor(expected, 80, 8000, 1000).tok_per_s, expected.summ_tok_per_s);
    ExpectNear(BoundFor(expected, 1, 1000, 256).decode_tok_per_s, expected.alone_tok_per_s);
  }
}

TEST(Bound, OfPublishedShapes) { ExpectBounds(kPlain); }
TEST(Bound, WithDrafts) { ExpectBounds(kDrafts); }

// A device that multiplies slowly is held up by that.
TEST(Bound, TheSlowerCeilingCounts) {
  RunShape run;
  run.lengths = {{10, 11}};
  const ModelWork work(ConfigOf("gemma-4-E2B-it"), DType::kF32, false, true);
  const double fast = BoundOf(run, work, nullptr, {30, 0, 1000}).step_ms;
  EXPECT_NEAR(BoundOf(run, work, nullptr, {60, 0, 1000}).step_ms, fast / 2, 1e-9);
  EXPECT_NEAR(BoundOf(run, work, nullptr, {30, 0, 2000}).step_ms, fast, 1e-9);
  EXPECT_NEAR(BoundOf(run, work, nullptr, {30, 0, 1e-4}).step_ms,
              2 * BoundOf(run, work, nullptr, {30, 0, 2e-4}).step_ms, 1e-6);
}

// Five full layers of two KV heads keep 640 columns a key instead of 1024; nothing else changes.
TEST(Bound, AFoldedCacheIsReadOnce) {
  const ModelConfig config = ConfigOf("gemma-4-26B-A4B-it");
  const ModelWork split(config, DType::kBf16, false, true),
      folded(config, DType::kBf16, true, true);
  const StepWork a = split.Decode(80, 1, 1500), b = folded.Decode(80, 1, 1500);
  EXPECT_EQ(a.attention.bytes - b.attention.bytes, 80.0 * 1500 * 5 * 2 * (1024 - 640) * 2);
  EXPECT_EQ(a.products.bytes, b.products.bytes);
  EXPECT_EQ(a.attention.flops, b.attention.flops);
}

}  // namespace
}  // namespace lapidary
