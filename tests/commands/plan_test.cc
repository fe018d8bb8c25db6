// The plan's byte counts against figures worked out by hand from the published dimensions
// (GEMMA4.md sections 1, 5 and 10), written here once more as numbers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "io/json.h"
#include "tests/program.h"

namespace lapidary {
namespace {

using testing::HasSubstr;

std::string Config(const std::string& name) {
  return std::string(LAPIDARY_SOURCE_DIR) + "/tests/data/configs/gemma-4-" + name + "-it";
}

json::object Plan(std::vector<std::string> args) {
  args.insert(args.begin(), {"plan", "--json"});
  const ProgramResult result = RunProgram(LAPIDARY_PROGRAM, args);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return result.exit_code == 0 ? json::parse(result.out).as_object() : json::object();
}
int64_t Amount(const json::object& plan, const char* name) {
  return plan.at(name).to_number<int64_t>();
}

struct Model {
  const char* name;
  int64_t sliding_token_bytes, full_token_bytes;  // of KV, section 5
  double text_million;                            // parameters, section 1
  int full_pages, sliding_pages;                  // a slab
  int64_t hidden, layers, sliding, full, heads, sliding_kv, full_kv, mlp, wide_mlp, wide_layers;
  int64_t shared_sliding, shared_full;  // layers without K and V of their own
  int64_t ple, experts, expert_width;
  bool k_is_v;
};

constexpr Model kModels[] = {
    {"E2B", 12'288, 6'144, 4'647, 2,  1,  1536, 35,  28, 7, 8,
     1,     1,      6144,  12288, 20, 16, 4,    256, 0,  0, false},
    {"E4B", 40'960, 16'384, 7'518, 5, 2,  2560, 42,  35, 7, 8,
     2,     2,      10240,  0,     0, 15, 3,    256, 0,  0, false},
    {"26B-A4B", 204'800, 20'480, 25'233, 10, 1, 2816, 30, 25,  5,   16,
     8,         2,       2112,   0,      0,  0, 0,    0,  128, 704, true},
    {"31B", 819'200, 81'920, 30'697, 10, 1, 5376, 60, 50, 10, 32,
     16,    4,       21504,  0,      0,  0, 0,    0,  0,  0,  true},
};

// Elements of the text model by section 10, K and V of layers that share another's included if
// `with_shared`.
int64_t Elements(const Model& m, bool with_shared) {
  constexpr int64_t kVocab = 262144, kSlidingDim = 256, kFullDim = 512;
  const int64_t h = m.hidden;
  int64_t n = kVocab * h + h;
  if (m.ple > 0) n += kVocab * m.layers * m.ple + m.layers * m.ple * h + m.ple;
  const int64_t own_sliding = m.sliding - (with_shared ? 0 : m.shared_sliding);
  const int64_t own_full = m.full - (with_shared ? 0 : m.shared_full);
  const auto attention = [&](int64_t count, int64_t own, int64_t dim, int64_t kv_heads,
                             int64_t k_v) {
    n += count * (2 * m.heads * dim * h + dim);   // q_proj, o_proj, q_norm
    n += own * (k_v * kv_heads * dim * h + dim);  // k_proj, v_proj, k_norm
  };
  attention(m.sliding, own_sliding, kSlidingDim, m.sliding_kv, 2);
  attention(m.full, own_full, kFullDim, m.full_kv, m.k_is_v ? 1 : 2);
  n += 3 * h * (m.mlp * (m.layers - m.wide_layers) + m.wide_mlp * m.wide_layers);
  n += m.layers * (4 * h + 1);  // norms, layer_scalar
  if (m.ple > 0) n += m.layers * (2 * m.ple * h + h);
  if (m.experts > 0)
    n += m.layers * (m.experts * h + h + m.experts + 3 * m.experts * m.expert_width * h + 3 * h);
  return n;
}

TEST(Plan, BytesOfThePublishedModels) {
  for (const Model& m : kModels) {
    SCOPED_TRACE(m.name);
    const json::object plan = Plan({Config(m.name), "--device-memory", "80GiB"});
    // The hand count is right if it meets the published sum; then the plan must meet the count.
    const double counted = static_cast<double>(Elements(m, true)) / 1e6;
    const double used = static_cast<double>(Elements(m, false)) / 1e6;
    EXPECT_TRUE(std::abs(counted - m.text_million) < 0.6 || std::abs(used - m.text_million) < 0.6)
        << counted << " " << used;
    EXPECT_EQ(Amount(plan, "weight_bytes"), 2 * Elements(m, false));
    EXPECT_EQ(Amount(plan, "sliding_page_bytes"), 64 * m.sliding_token_bytes);
    EXPECT_EQ(Amount(plan, "sliding_pages_per_slab"), m.sliding_pages);
    EXPECT_EQ(Amount(plan, "slab_bytes"), int64_t{64} * m.sliding_pages * m.sliding_token_bytes);
    EXPECT_EQ(Amount(plan, "unused_slab_bytes"), 0);
    // A token and KV head of a folded full layer has 640 columns instead of 1024.
    EXPECT_EQ(plan.at("kv_folded").as_bool(), m.k_is_v);
    EXPECT_EQ(Amount(plan, "full_page_bytes"),
              64 * m.full_token_bytes * (m.k_is_v ? 640 : 1024) / 1024);
    EXPECT_EQ(Amount(plan, "full_pages_per_slab"), m.k_is_v ? 16 : m.full_pages);
    const json::object split = Plan({Config(m.name), "--device-memory", "80GiB", "--no-kv-fold"});
    EXPECT_FALSE(split.at("kv_folded").as_bool());
    EXPECT_EQ(Amount(split, "full_page_bytes"), 64 * m.full_token_bytes);
    EXPECT_EQ(Amount(split, "full_pages_per_slab"), m.full_pages);
    EXPECT_EQ(Amount(split, "slab_bytes"), Amount(plan, "slab_bytes"));
  }
}

TEST(Plan, ABoundIsInBytesPagesTokensOrAShare) {
  const std::string e4b = Config("E4B");
  const json::object bytes = Plan({e4b, "--kv-cache-memory-bytes", "4GiB"});
  EXPECT_EQ(Amount(bytes, "num_slabs"), (int64_t{4} << 30) / Amount(bytes, "slab_bytes"));
  // vLLM: 0.5 x 80 GiB holds all; SGLang: weights and KV, so the workspace more is left for KV.
  const json::object all =
      Plan({e4b, "--device-memory", "80GiB", "--gpu-memory-utilization", "0.5"});
  const json::object stat = Plan({e4b, "--device-memory", "80GiB", "--mem-fraction-static", "0.5"});
  const int64_t budget = int64_t{40} << 30, slab = Amount(all, "slab_bytes");
  const int64_t rest = budget - Amount(all, "weight_bytes");
  EXPECT_EQ(Amount(all, "num_slabs"), (rest - Amount(all, "workspace_bytes")) / slab);
  EXPECT_EQ(Amount(stat, "num_slabs"), rest / slab);
  // Of several the smallest.
  const json::object both = Plan({e4b, "--device-memory", "80GiB", "--gpu-memory-utilization",
                                  "0.5", "--kv-cache-memory-bytes", "1GiB"});
  EXPECT_EQ(Amount(both, "num_slabs"), (int64_t{1} << 30) / slab);
  EXPECT_EQ(both.at("kv_bound").as_string(), "--kv-cache-memory-bytes");
  // A page of 64 tokens is 64 tokens; more tokens than one context are several requests.
  const json::object pages = Plan({e4b, "--num-gpu-blocks-override", "1000"});
  const json::object tokens = Plan({e4b, "--max-total-tokens", "64k"});
  EXPECT_EQ(Amount(pages, "num_slabs"), Amount(tokens, "num_slabs"));
  EXPECT_GE(Amount(tokens, "context"), 64000);
  const json::object once = Plan({e4b, "--max-model-len", "4096", "--max-total-tokens", "4096"});
  const json::object twice = Plan({e4b, "--max-model-len", "4K", "--max-total-tokens", "8K"});
  EXPECT_EQ(Amount(twice, "num_slabs"), 2 * Amount(once, "num_slabs"));
  EXPECT_EQ(Amount(once, "context"), 4096);
}

// The fold is the default on a GPU alone, and refused where values are no keys.
TEST(Plan, AFoldedCache) {
  for (const Model& m : kModels) {
    SCOPED_TRACE(m.name);
    EXPECT_FALSE(Plan({Config(m.name)}).at("kv_folded").as_bool());
    if (m.k_is_v) {
      EXPECT_TRUE(Plan({Config(m.name), "--kv-fold", "on"}).at("kv_folded").as_bool());
      continue;
    }
    const ProgramResult refused =
        RunProgram(LAPIDARY_PROGRAM, {"plan", Config(m.name), "--kv-fold", "on"});
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_THAT(refused.err, HasSubstr("--kv-fold on: the model's cache cannot be folded: its full "
                                       "layers have values of their own"));
  }
  const ProgramResult told = RunProgram(LAPIDARY_PROGRAM, {"plan", Config("31B"), "--no-kv-fold"});
  EXPECT_THAT(told.out, HasSubstr("K and V  split: as asked  [--kv-fold]"));
}

TEST(Plan, StepTokens) {
  const std::string e2b = Config("E2B");
  EXPECT_EQ(Amount(Plan({e2b}), "chunk_tokens"), 256);
  EXPECT_EQ(Amount(Plan({e2b, "--device-memory", "80GiB"}), "chunk_tokens"), 8192);
  EXPECT_EQ(Amount(Plan({Config("31B"), "--device-memory", "80GiB"}), "chunk_tokens"), 4096);
  EXPECT_EQ(Amount(Plan({e2b, "--max-num-batched-tokens", "2048"}), "chunk_tokens"), 2048);
  EXPECT_EQ(Amount(Plan({e2b, "--max-num-batched-tokens", "2048", "--chunked-prefill-size", "512"}),
                   "chunk_tokens"),
            512);
  EXPECT_EQ(Amount(Plan({e2b, "--max-prefill-tokens", "128"}), "chunk_tokens"), 128);
}

TEST(Plan, RefusesWhatCannotBe) {
  const auto run = [](std::vector<std::string> args) {
    args.insert(args.begin(), "plan");
    return RunProgram(LAPIDARY_PROGRAM, args);
  };
  const ProgramResult share =
      run({Config("31B"), "--device-memory", "80GiB", "--gpu-memory-utilization", "0.5"});
  EXPECT_EQ(share.exit_code, 1);
  EXPECT_THAT(share.err, HasSubstr("--gpu-memory-utilization 0.5: 42949672960 bytes"));
  EXPECT_EQ(run({"--max-num-batched-tokens", "10"}).exit_code, 2);
  for (const char* bad : {"32q", "1.5", "-2", "", "1e3", "3000m", "nan", "1.0001k"}) {
    const ProgramResult result = run({"--max-model-len", bad});
    EXPECT_EQ(result.exit_code, 2) << bad;
    EXPECT_THAT(result.err, HasSubstr("--max-model-len")) << bad;
  }
  EXPECT_EQ(run({"--gpu-memory-utilization", "1.5"}).exit_code, 2);
  EXPECT_THAT(run({Config("12B")}).err, HasSubstr("12B Unified"));
}

}  // namespace
}  // namespace lapidary
