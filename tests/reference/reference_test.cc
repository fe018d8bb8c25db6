// Small random checkpoints of all families with assistants; expected values are transformers'
// (tests/data/reference).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "app/verify/golden_check.h"
#include "io/safetensors.h"
#include "model/solo_session.h"
#include "ops/cpu/cpu_ops.h"

namespace lapidary {
namespace {

const std::string kData = std::string(LAPIDARY_SOURCE_DIR) + "/tests/data/reference/";

std::unique_ptr<Checkpoint> Load(const std::string& name) {
  auto checkpoint = LoadCheckpoint(kData + name, {});
  CHECK(checkpoint.ok(), "{}", checkpoint.error().message);
  return std::move(checkpoint).value();
}

struct Family {
  const char* name;
  bool folds = false;  // K into V
};

class ReferenceTest : public testing::TestWithParam<Family> {
 protected:
  const std::string name_ = GetParam().name;
  const KvFold fold_ = GetParam().folds ? KvFold::kOn : KvFold::kOff;
  std::unique_ptr<Checkpoint> target_ = Load(name_);
  std::unique_ptr<Checkpoint> drafter_ = Load(name_ + "-assistant");
  std::unique_ptr<Ops> ops_ = MakeCpuOps(2);

  std::vector<int32_t> Prompt(int length) const {
    std::vector<int32_t> ids(static_cast<size_t>(length));
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>((i * 37 + 11) % 200);
    return ids;
  }

  // Logits of every position, bit for bit, with this cutting.
  std::vector<float> Logits(const std::vector<int32_t>& ids, int chunk, bool fast_prefill = true) {
    SoloSession session(*target_, nullptr, *ops_,
                        {static_cast<int>(ids.size()), chunk, fast_prefill, DType::kF32, fold_});
    std::vector<float> all;
    for (size_t begin = 0; begin < ids.size(); begin += static_cast<size_t>(chunk)) {
      const size_t count = std::min(static_cast<size_t>(chunk), ids.size() - begin);
      const StepOutput out = session.Append(std::span(ids).subspan(begin, count), true);
      all.insert(all.end(), out.logits.f32(), out.logits.f32() + out.logits.num_elements());
    }
    return all;
  }
};

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_P(ReferenceTest, EqualsTheGoldens) {
  const Safetensors file = Safetensors::Open(kData + name_ + "/goldens.safetensors").value();
  for (const int chunk : {0, 1, 7, 64}) {
    std::string failures;
    GoldenCheck check(*target_, drafter_.get(), *ops_, {chunk, 1e-3, DType::kF32, fold_},
                      [&](const std::string& line) {
                        if (line.starts_with("FAIL")) failures += line + "\n";
                      });
    const auto counts = check.Run(ReadGoldens(file));
    ASSERT_TRUE(counts.ok()) << counts.error().message;
    EXPECT_EQ(counts.value().failed, 0) << failures;
    // Three prompts with logits, hidden and greedy; each with two drafts of logits and tokens.
    EXPECT_EQ(counts.value().passed, 3 * (3 + 2 * 2));
  }
}

TEST_P(ReferenceTest, AWrongWeightFails) {
  const Safetensors file = Safetensors::Open(kData + name_ + "/goldens.safetensors").value();
  std::vector<Bf16> changed(static_cast<size_t>(target_->config.hidden), ToBf16(1.0f));
  target_->weights.layers[1].post_attn_norm =
      MakeTensor(changed.data(), DType::kBf16, target_->config.hidden);
  GoldenCheck check(*target_, nullptr, *ops_, {0, 1e-3, DType::kF32, fold_},
                    [](const std::string&) {});
  EXPECT_GT(check.Run(ReadGoldens(file)).value().failed, 0);
}

TEST(ReferenceInBf16, IsAsNearAsTheReferencesOwn) {
  const auto target = Load("wide"), drafter = Load("wide-assistant");
  const auto ops = MakeCpuOps(2);
  const Safetensors file = Safetensors::Open(kData + "wide/bf16_goldens.safetensors").value();
  for (const int chunk : {0, 1, 40}) {
    std::string lines;
    GoldenCheck check(*target, drafter.get(), *ops, {chunk, 0, DType::kBf16},
                      [&](const std::string& line) { lines += line + "\n"; });
    const auto counts = check.Run(ReadGoldens(file));
    ASSERT_TRUE(counts.ok()) << counts.error().message;
    EXPECT_EQ(counts.value().failed, 0) << lines;
    EXPECT_EQ(counts.value().passed, 3);  // logits, greedy tokens and drafts, of all prompts
  }
}

// The least likely tokens in place of a prompt's greedy ones.
TEST(ReferenceInBf16, TokensBeyondTheBestFail) {
  const auto target = Load("wide");
  const auto ops = MakeCpuOps(2);
  const Safetensors file = Safetensors::Open(kData + "wide/bf16_goldens.safetensors").value();
  Goldens goldens = ReadGoldens(file);
  Tensor& greedy = goldens.at("text.0.greedy");
  const Tensor& logits = goldens.at("text.0.logits");
  const float* last = logits.Rows(logits.rows() - 1, 1).f32();
  const auto least = static_cast<int32_t>(std::min_element(last, last + logits.cols()) - last);
  std::vector<int32_t> tokens(static_cast<size_t>(greedy.num_elements()), least);
  greedy = MakeTensor(tokens.data(), DType::kI32, static_cast<int64_t>(tokens.size()));
  std::string lines;
  GoldenCheck check(*target, nullptr, *ops, {0, 0, DType::kBf16},
                    [&](const std::string& line) { lines += line + "\n"; });
  EXPECT_EQ(check.Run(goldens).value().failed, 1) << lines;
  EXPECT_THAT(lines, testing::HasSubstr("\nFAIL  greedy"));
}

TEST(ReferenceInBf16, AWrongWeightFails) {
  const auto target = Load("wide"), drafter = Load("wide-assistant");
  const auto ops = MakeCpuOps(2);
  const Safetensors file = Safetensors::Open(kData + "wide/bf16_goldens.safetensors").value();
  for (Checkpoint* wrong : {target.get(), drafter.get()}) {
    Tensor& norm = wrong->weights.layers[1].post_attn_norm;
    std::vector<Bf16> other(static_cast<size_t>(norm.num_elements()), ToBf16(1.0f));
    const Tensor right = std::exchange(
        norm, MakeTensor(other.data(), DType::kBf16, static_cast<int64_t>(other.size())));
    GoldenCheck check(*target, drafter.get(), *ops, {0, 0, DType::kBf16},
                      [](const std::string&) {});
    EXPECT_GT(check.Run(ReadGoldens(file)).value().failed, 0);
    norm = right;
  }
}

TEST(ReferenceInBf16, NamesWhatIsMissing) {
  const auto target = Load("wide");
  const auto ops = MakeCpuOps(1);
  const Safetensors file = Safetensors::Open(kData + "wide/goldens.safetensors").value();
  GoldenCheck check(*target, nullptr, *ops, {0, 0, DType::kBf16}, [](const std::string&) {});
  const auto counts = check.Run(ReadGoldens(file));
  ASSERT_FALSE(counts.ok());
  EXPECT_EQ(counts.error().param, "text.0.bf16_logits");
}

TEST_P(ReferenceTest, PrefillAtOnceEqualsChunksEqualsTokenByToken) {
  const std::vector<int32_t> ids = Prompt(150);
  const std::vector<float> at_once = Logits(ids, 150);
  for (const int chunk : {1, 7, 63, 64, 65, 128})
    EXPECT_TRUE(SameBits(at_once, Logits(ids, chunk))) << chunk;
}

TEST_P(ReferenceTest, RowsThatStopEarlyChangeNoBit) {
  const std::vector<int32_t> ids = Prompt(100);
  for (const int chunk : {1, 33, 64, 100}) {
    std::vector<std::vector<float>> last;
    for (const bool fast : {true, false}) {
      SoloSession session(*target_, nullptr, *ops_, {100, chunk, fast, DType::kF32, fold_});
      StepOutput out;
      for (size_t begin = 0; begin < ids.size(); begin += static_cast<size_t>(chunk))
        out = session.Append(
            std::span(ids).subspan(begin, std::min(static_cast<size_t>(chunk), ids.size() - begin)),
            false);
      last.emplace_back(out.logits.f32(), out.logits.f32() + out.logits.cols());
    }
    EXPECT_TRUE(SameBits(last[0], last[1])) << chunk;
  }
}

// Three sequences of different lengths in one batch, their pages interleaved: each row has the bits
// it has alone.
TEST_P(ReferenceTest, ARowInABatchEqualsTheRowAlone) {
  const KvLayout layout = KvLayout::Make(KvShapes(target_->config, GetParam().folds),
                                         target_->config.window, DType::kF32);
  KvArena arena(layout, 40, HostDevice());
  arena.Poison();
  Gemma4::Limits limits{400, 400, true, DType::kF32, 40};
  Gemma4 model(target_->config, target_->weights, *ops_, arena, limits);
  const std::vector<int> lengths = {70, 1, 129};
  std::vector<int32_t> full(9), sliding(9);  // [3 slots, 3 cells]
  for (int page = 0; page < 3; ++page)
    for (int s = 0; s < 3; ++s) {
      full[static_cast<size_t>(s * 3 + page)] = layout.full_pages_per_slab + page * 3 + s;
      sliding[static_cast<size_t>(s * 3 + page)] =
          20 * layout.sliding_pages_per_slab + page * 3 + s;
    }
  BatchBuilder builder(MakeTensor(full.data(), DType::kI32, 3, 3),
                       MakeTensor(sliding.data(), DType::kI32, 3, 3), target_->config.window);
  for (int s = 0; s < 3; ++s) {
    const int length = lengths[static_cast<size_t>(s)];
    builder.AddChunk(s, 0, Prompt(length), length, {});
  }
  const Batch batch = builder.Build();
  const StepOutput out = model.Forward(batch);
  const float* rows = out.logits.f32();
  for (const int length : lengths) {
    const std::vector<float> alone = Logits(Prompt(length), length);
    EXPECT_EQ(std::memcmp(rows, alone.data(), alone.size() * sizeof(float)), 0) << length;
    rows += alone.size();
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ReferenceTest,
                         testing::Values(Family{"dense"}, Family{"dense", true}, Family{"moe"},
                                         Family{"moe", true}, Family{"edge"}, Family{"wide"}),
                         [](const auto& family) {
                           return std::string(family.param.name) +
                                  (family.param.folds ? "_folded" : "");
                         });

}  // namespace
}  // namespace lapidary
