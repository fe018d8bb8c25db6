// Dummy weights must behave like a model where it matters to a benchmark: experts evenly used,
// tokens that differ from step to step. A mixture-of-experts model of 128 experts, small in width.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "checkpoints/tiny_checkpoint.h"
#include "io/json.h"
#include "model/solo_session.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/sampling.h"

namespace lapidary {
namespace {

constexpr int kExperts = 128, kTopK = 8, kVocab = 8192;

std::string MoeConfigText() {
  json::object root = json::parse(TinyConfig("moe")).as_object();
  json::object& text = root["text_config"].as_object();
  for (const auto& [key, value] :
       std::initializer_list<std::pair<const char*, int>>{{"vocab_size", kVocab},
                                                          {"hidden_size", 192},
                                                          {"intermediate_size", 144},
                                                          {"num_hidden_layers", 12},
                                                          {"num_attention_heads", 4},
                                                          {"head_dim", 32},
                                                          {"global_head_dim", 64},
                                                          {"sliding_window", 64},
                                                          {"max_position_embeddings", 4096},
                                                          {"num_experts", kExperts},
                                                          {"top_k_experts", kTopK},
                                                          {"moe_intermediate_size", 48}})
    text[key] = value;
  json::array types;
  for (int i = 0; i < 12; ++i) types.push_back(i % 6 == 5 ? "full_attention" : "sliding_attention");
  text["layer_types"] = types;
  return json::serialize(root);
}

// The CPU backend, which also counts the distinct experts of each Router call.
class CountingBackend : public cpu::CpuBackend {
 public:
  CountingBackend() : CpuBackend(2) {}
  void Router(Tensor experts, Tensor weights, Tensor x, const RouterWeights& router,
              float eps) override {
    CpuBackend::Router(experts, weights, x, router, eps);
    std::set<int32_t> seen;
    for (int64_t t = 0; t < experts.rows(); ++t)
      for (int64_t j = 0; j < experts.cols(); ++j)
        seen.insert(static_cast<const int32_t*>(experts.data)[t * experts.row_stride + j]);
    distinct.push_back(static_cast<double>(seen.size()));
  }
  std::vector<double> distinct;  // one a layer
};

class DummyRouting : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = MakeDummyCheckpoint(scratch_.Write("moe", {{"config.json", MoeConfigText()}}),
                                    uint64_t{1} << 30);
    ASSERT_TRUE(made.ok()) << made.error().message;
    checkpoint_ = std::move(made).value();
    session_.emplace(*checkpoint_, nullptr, ops_,
                     SoloSession::Options{.max_tokens = 1024, .max_chunk = 256});
  }
  std::vector<int32_t> RandomTokens(size_t count) {
    std::vector<int32_t> tokens(count);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random_() % kVocab);
    return tokens;
  }

  const ScratchFolder scratch_;
  std::mt19937 random_{11};
  CountingBackend ops_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::optional<SoloSession> session_;
};

// Were each token to choose its 8 experts by lot, T tokens would meet 128 (1 - (15/16)^T) of them.
TEST_F(DummyRouting, ExpertsAreEvenlyUsed) {
  for (const size_t num_tokens : {4, 8, 16, 32, 64, 128}) {
    double sum = 0;
    constexpr int kRepeats = 4;
    ops_.distinct.clear();
    for (int i = 0; i < kRepeats; ++i) {
      session_->Reset();
      const StepOutput out = session_->Append(RandomTokens(num_tokens), true);
      ASSERT_TRUE(AllFinite({out.logits.f32(), static_cast<size_t>(out.logits.num_elements())}));
    }
    for (const double distinct : ops_.distinct) sum += distinct;
    const double mean = sum / static_cast<double>(ops_.distinct.size());
    const double by_lot = kExperts * (1 - std::pow(15.0 / 16, static_cast<double>(num_tokens)));
    EXPECT_GE(mean, 0.97 * by_lot) << num_tokens << " tokens";
    RecordProperty("distinct_of_" + std::to_string(num_tokens), std::to_string(mean / by_lot));
  }
}

TEST_F(DummyRouting, SampledTokensDiffer) {
  constexpr int kTokens = 800;
  Sampler sampler(kVocab);
  std::set<int32_t> seen;
  int32_t token = 2;
  for (int i = 0; i < kTokens; ++i) {
    const StepOutput out = session_->Append({&token, 1}, false);
    SamplingRow row;
    row.seed = 7;
    row.position = static_cast<uint64_t>(i);
    const std::span<const float> logits(out.logits.f32(), kVocab);
    token = sampler.Sample(logits, row).value();
    seen.insert(token);
  }
  RecordProperty("distinct_of_800", static_cast<int>(seen.size()));
  EXPECT_GE(seen.size(), 700u);
}

}  // namespace
}  // namespace lapidary
