// The CPU ops against slow definitions in double precision, at shapes of the real models and
// awkward ones.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "ops/batch.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/vector.h"

namespace lapidary {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Owned {
  std::vector<float> data;
  Tensor tensor;
  Owned(int64_t rows, int64_t cols, float fill = kNan)
      : data(static_cast<size_t>(rows * cols), fill),
        tensor(MakeTensor(data.data(), DType::kF32, rows, cols)) {}
  float& at(int64_t r, int64_t c) { return data[static_cast<size_t>(r * tensor.cols() + c)]; }
};

struct OwnedBf16 {
  std::vector<Bf16> data;
  Tensor tensor;
  OwnedBf16(int64_t rows, int64_t cols)
      : data(static_cast<size_t>(rows * cols)),
        tensor(MakeTensor(data.data(), DType::kBf16, rows, cols)) {}
  float at(int64_t r, int64_t c) const {
    return ToFloat(data[static_cast<size_t>(r * tensor.cols() + c)]);
  }
};

Tensor Ids(std::vector<int32_t>& ids) {
  return MakeTensor(ids.data(), DType::kI32, static_cast<int64_t>(ids.size()));
}

// A RowSet by hand: rows of slots whose tables are lines of one page list per slot.
struct OwnedRows {
  std::vector<int32_t> positions, key_ends, slots, chunks, pages;
  std::vector<ChunkSpan> spans;
  int64_t num_slots = 0;

  // Every slot has the same number of cells; the same list serves as full and as sliding table.
  void AddSlot(const std::vector<int32_t>& table) {
    pages.insert(pages.end(), table.begin(), table.end());
    ++num_slots;
  }
  void Add(int32_t position, int32_t slot, int32_t chunk = -1) {
    positions.push_back(position);
    key_ends.push_back(position + 1);
    slots.push_back(slot);
    chunks.push_back(chunk);
  }
  RowSet View() {
    const int64_t cells = num_slots == 0 ? 0 : static_cast<int64_t>(pages.size()) / num_slots;
    const Tensor table = MakeTensor(pages.data(), DType::kI32, num_slots, cells);
    return {Ids(positions), Ids(key_ends), Ids(slots), Ids(chunks), table, table, spans};
  }
};

class CpuOpsTest : public testing::Test {
 protected:
  void Fill(Owned& t, double scale = 1.0) {
    for (float& v : t.data) v = static_cast<float>(normal_(rng_) * scale);
  }
  void Fill(OwnedBf16& t, double scale = 1.0) {
    for (Bf16& v : t.data) v = ToBf16(static_cast<float>(normal_(rng_) * scale));
  }
  std::mt19937 rng_{7};
  std::normal_distribution<double> normal_;
  std::unique_ptr<Ops> ops_ = MakeCpuOps(2);
};

TEST(CpuMath, ExpAndTanhAreCloseToTheLibrary) {
  for (int i = 0; i < 131387; ++i) {
    const auto f = static_cast<float>(-90 + i * 0.00137);
    const double expected = std::exp(static_cast<double>(f));
    if (expected > 1e-37 && expected < 3e38) {
      ASSERT_NEAR(cpu::Exp(f) / expected, 1.0, 3e-7) << f;
    }
    ASSERT_NEAR(cpu::Tanh(f), std::tanh(static_cast<double>(f)), 2e-7) << f;
  }
  EXPECT_EQ(cpu::Exp(-1000.0f), 0.0f);
  EXPECT_EQ(cpu::Exp(-INFINITY), 0.0f);
  EXPECT_EQ(cpu::Exp(1000.0f), INFINITY);
  EXPECT_TRUE(std::isnan(cpu::Exp(kNan)));
  EXPECT_TRUE(std::isnan(cpu::Tanh(kNan)));
  EXPECT_EQ(cpu::Exp(0.0f), 1.0f);
}

TEST_F(CpuOpsTest, EmbedScalesRowsAndChecksIds) {
  OwnedBf16 table(10, 48);
  Fill(table);
  Owned out(3, 48);
  std::vector<int32_t> ids = {9, 0, 4};
  ops_->Embed(out.tensor, table.tensor, Ids(ids), 39.25f);
  for (int64_t t = 0; t < 3; ++t)
    for (int64_t i = 0; i < 48; ++i)
      EXPECT_EQ(out.at(t, i), table.at(ids[static_cast<size_t>(t)], i) * 39.25f);
  std::vector<int32_t> bad = {10, 0, -1};
  EXPECT_EXIT(ops_->Embed(out.tensor, table.tensor, Ids(bad), 1.0f), testing::ExitedWithCode(70),
              "token id 10 of 10");
}

TEST_F(CpuOpsTest, RmsNormByGroups) {
  for (const auto& [rows, cols, group] :
       {std::tuple{1, 64, 64}, {5, 5376, 5376}, {3, 1024, 256}, {2, 96, 48}, {0, 32, 32}}) {
    Owned in(rows, cols), out(rows, cols);
    OwnedBf16 weight(1, group);
    Fill(in, 3.0);
    Fill(weight);
    weight.tensor = MakeTensor(weight.data.data(), DType::kBf16, group);
    for (const bool with_weight : {true, false}) {
      ops_->RmsNorm(out.tensor, in.tensor, with_weight ? weight.tensor : Tensor{}, 1e-6f, group);
      for (int64_t t = 0; t < rows; ++t)
        for (int64_t g = 0; g < cols; g += group) {
          double sum = 0;
          for (int64_t i = 0; i < group; ++i)
            sum += std::pow(static_cast<double>(in.at(t, g + i)), 2);
          const double factor = 1.0 / std::sqrt(sum / group + 1e-6);
          for (int64_t i = 0; i < group; ++i) {
            const double w = with_weight ? ToFloat(weight.data[static_cast<size_t>(i)]) : 1.0;
            ASSERT_NEAR(out.at(t, g + i), in.at(t, g + i) * factor * w, 1e-5);
          }
        }
    }
  }
}

TEST_F(CpuOpsTest, GeluMulAndSoftCap) {
  Owned gate(4, 131), up(4, 131), out(4, 131);
  Fill(gate, 2.0);
  Fill(up);
  ops_->GeluMul(out.tensor, gate.tensor, up.tensor);
  Owned capped(4, 131);
  Fill(capped, 40.0);
  const std::vector<float> before = capped.data;
  ops_->SoftCap(capped.tensor, 30.0f);
  for (size_t i = 0; i < out.data.size(); ++i) {
    const double x = gate.data[i];
    const double gelu = 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    ASSERT_NEAR(out.data[i], gelu * up.data[i], 2e-6);
    ASSERT_NEAR(capped.data[i], 30 * std::tanh(before[i] / 30.0), 1e-5);
  }
}

TEST_F(CpuOpsTest, RopeRotatesThePairsOfTheSpec) {
  for (const auto& [head_dim, factor, theta] : {std::tuple{256, 1.0, 10000.0},
                                                {512, 0.25, 1000000.0},
                                                {48, 1.0, 10000.0},
                                                {96, 0.25, 1000000.0}}) {
    const int heads = 3;
    Owned x(4, int64_t{heads} * head_dim);
    Fill(x);
    std::vector<float> before = x.data;
    OwnedRows rows;
    for (const int position : {0, 1, 777, 131071}) rows.Add(position, 0);
    ops_->Rope(x.tensor, rows.View(), head_dim, {theta, factor});
    const int half = head_dim / 2, rotated = static_cast<int>(factor * head_dim / 2);
    for (int64_t t = 0; t < 4; ++t)
      for (int h = 0; h < heads; ++h)
        for (int j = 0; j < half; ++j) {
          const auto at = static_cast<size_t>((t * heads + h) * head_dim + j);
          const auto pair = at + static_cast<size_t>(half);
          const auto frequency = static_cast<float>(1.0 / std::pow(theta, 2.0 * j / head_dim));
          const double angle =
              j < rotated ? static_cast<float>(rows.positions[static_cast<size_t>(t)]) * frequency
                          : 0;
          // One ulp of the frequency is up to position * frequency * 6e-8 of angle.
          const double tolerance =
              1e-5 + rows.positions[static_cast<size_t>(t)] * double{frequency} * 5e-7;
          ASSERT_NEAR(x.data[at], before[at] * std::cos(angle) - before[pair] * std::sin(angle),
                      tolerance);
          ASSERT_NEAR(x.data[pair], before[pair] * std::cos(angle) + before[at] * std::sin(angle),
                      tolerance);
          if (j >= rotated) {
            ASSERT_EQ(x.data[at], before[at]);
            ASSERT_EQ(x.data[pair], before[pair]);
          }
        }
  }
}

// Two sequences with pages out of order; keys before the window and cells of other sequences are
// NaN.
TEST_F(CpuOpsTest, AttentionReadsExactlyTheVisibleKeys) {
  const int heads = 4, kv_heads = 2, dim = 48, length = 150;
  for (const int window : {0, 1, 24, 64, 65, 128}) {
    const KvLayout layout = KvLayout::Make(
        {{false, true, kv_heads, dim}, {true, true, kv_heads, dim}}, window, DType::kF32);
    KvArena arena(layout, 12, HostDevice());
    arena.Poison();
    const bool full = window == 0;
    AttentionSpec spec;
    spec.kv = arena.layer(full ? 1 : 0);
    spec.full = full;
    spec.window = window;
    spec.num_heads = heads;
    const std::vector<std::vector<int32_t>> pages = {{7, 3, 9}, {2, 8, 5}};
    std::vector<Owned> k, v;
    OwnedRows rows;
    for (const auto& table : pages) rows.AddSlot(table);
    for (int s = 0; s < 2; ++s) {
      k.emplace_back(length, kv_heads * dim);
      v.emplace_back(length, kv_heads * dim);
      Fill(k.back(), 0.3);
      Fill(v.back());
      OwnedRows store;
      for (const auto& table : pages) store.AddSlot(table);
      for (int p = 0; p < length; ++p) store.Add(p, s);
      ops_->StoreKv(k.back().tensor, v.back().tensor, store.View(), spec);
    }
    for (const int end : {1, 2, 23, 24, 25, 63, 64, 65, 127, 128, 129, 150})
      for (int s = 0; s < 2; ++s) rows.Add(end - 1, s);
    const RowSet view = rows.View();
    const int64_t columns = int64_t{heads} * dim;
    Owned q(view.num_rows(), columns), out(view.num_rows(), columns);
    Fill(q);
    ops_->Attention(out.tensor, q.tensor, view, spec);
    for (int64_t t = 0; t < view.num_rows(); ++t) {
      const auto s = static_cast<size_t>(rows.slots[static_cast<size_t>(t)]);
      const int end = rows.key_ends[static_cast<size_t>(t)],
                begin = window == 0 ? 0 : std::max(0, end - window);
      for (int h = 0; h < heads; ++h) {
        const int kv = h / (heads / kv_heads) * dim;
        std::vector<double> p;
        double sum = 0;
        for (int j = begin; j < end; ++j) {
          double score = 0;
          for (int i = 0; i < dim; ++i) score += double{q.at(t, h * dim + i)} * k[s].at(j, kv + i);
          p.push_back(std::exp(score));
          sum += p.back();
        }
        for (int i = 0; i < dim; ++i) {
          double expected = 0;
          for (int j = begin; j < end; ++j)
            expected += p[static_cast<size_t>(j - begin)] / sum * v[s].at(j, kv + i);
          ASSERT_NEAR(out.at(t, h * dim + i), expected, 1e-5)
              << "window " << window << " end " << end;
        }
      }
    }
  }
}

TEST_F(CpuOpsTest, AMissingPageIsACheckNotAClamp) {
  const KvLayout layout = KvLayout::Make({{false, true, 1, 32}}, 16, DType::kF32);
  KvArena arena(layout, 4, HostDevice());
  AttentionSpec spec;
  spec.kv = arena.layer(0);
  spec.window = 16;
  spec.num_heads = 1;
  Owned q(1, 32, 0.5f), out(1, 32);
  const auto attend = [&](const std::vector<int32_t>& pages, int end) {
    OwnedRows rows;
    rows.AddSlot(pages);
    rows.Add(end - 1, 0);
    ops_->Attention(out.tensor, q.tensor, rows.View(), spec);
  };
  EXPECT_EXIT(attend({-1}, 5), testing::ExitedWithCode(70), "page -1 of 4");
  EXPECT_EXIT(attend({0}, 5), testing::ExitedWithCode(70), "page 0 of 4");
  EXPECT_EXIT(attend({4}, 5), testing::ExitedWithCode(70), "page 4 of 4");
  EXPECT_EXIT(attend({1}, 70), testing::ExitedWithCode(70), "page cell 1 of 1");
}

// A chunk in the middle of a sequence: its window comes from pages, its own keys go to scratch and
// to the pages that its table still has. Reading scratch gives the bits that reading pages gives.
TEST_F(CpuOpsTest, AChunkReadsScratchAndKeepsWhatHasAPage) {
  const int dim = 48, window = 100, before = 150, rows = 90;
  const KvLayout layout = KvLayout::Make({{false, true, 1, dim}}, window, DType::kF32);
  KvArena arena(layout, 8, HostDevice());
  arena.Poison();
  AttentionSpec spec;
  spec.kv = arena.layer(0);
  spec.window = window;
  spec.num_heads = 2;
  spec.scratch = spec.kv;
  std::vector<float> scratch(size_t{6 * 2 * kPageTokens} * dim, kNan);
  spec.scratch.base = reinterpret_cast<char*>(scratch.data());
  spec.scratch.num_pages = 6;
  Owned k(before + rows, dim), v(before + rows, dim), q(rows, int64_t{2} * dim);
  Fill(k, 0.3);
  Fill(v);
  Fill(q);
  std::vector<int32_t> table = {5, 1, 4, 2}, kept = {-1, -1, -1, 2};
  const auto store = [&](OwnedRows& chunk) {
    ops_->StoreKv(k.tensor.Rows(chunk.positions[0], chunk.View().num_rows()),
                  v.tensor.Rows(chunk.positions[0], chunk.View().num_rows()), chunk.View(), spec);
  };
  OwnedRows all;
  all.AddSlot(table);
  for (int p = 0; p < before + rows; ++p) all.Add(p, 0);
  store(all);
  OwnedRows paged;
  paged.AddSlot(table);
  for (int p = before; p < before + rows; ++p) paged.Add(p, 0);
  Owned expected(rows, q.tensor.cols()), out(rows, q.tensor.cols());
  ops_->Attention(expected.tensor, q.tensor, paged.View(), spec);

  BatchBuilder builder(MakeTensor(table.data(), DType::kI32, 1, 4),
                       MakeTensor(table.data(), DType::kI32, 1, 4), window);
  std::vector<int32_t> tokens(rows, 7);
  const std::vector<SlidingPage> window_pages = {SlidingPage{5}, SlidingPage{1}, SlidingPage{4}};
  builder.AddChunk(0, before, tokens, 1, window_pages);
  Batch batch = builder.Build();
  ASSERT_EQ(batch.window_copies.size(), 3u);  // cells 0 to 2: positions 51 to 149
  ops_->GatherWindow(batch.window_copies, spec);
  arena.Poison();  // the pages may have another owner now
  batch.rows.sliding_pages = MakeTensor(kept.data(), DType::kI32, 1, 4);
  ops_->StoreKv(k.tensor.Rows(before, rows), v.tensor.Rows(before, rows), batch.rows, spec);
  ops_->Attention(out.tensor, q.tensor, batch.rows, spec);
  EXPECT_EQ(out.data, expected.data);
  const float* last = reinterpret_cast<const float*>(spec.kv.Keys(2, 0));
  for (int p = 192; p < before + rows; ++p)
    for (int i = 0; i < dim; ++i) ASSERT_EQ(last[(p - 192) * dim + i], k.at(p, i));
  for (const int32_t page : {1, 4, 5})
    EXPECT_TRUE(std::isnan(*reinterpret_cast<const float*>(spec.kv.Keys(page, 0))));
}

TEST_F(CpuOpsTest, CheckedTablesNameTheCell) {
  const KvLayout layout = KvLayout::Make({{false, true, 1, 32}}, 70, DType::kF32);
  KvArena arena(layout, 4, HostDevice());
  AttentionSpec spec;
  spec.kv = arena.layer(0);
  spec.window = 70;
  const std::vector<uint64_t> owners = {41, 42};
  const auto check = [&](const std::vector<int32_t>& table) {
    OwnedRows rows;
    rows.AddSlot({1, 2, 3});
    rows.AddSlot(table);
    rows.Add(150, 0);
    rows.Add(150, 1);
    RowSet view = rows.View();
    view.owners = owners;
    ops_->CheckTables(view, spec, 17);
  };
  check({-1, 1, 2});  // the window of position 150 begins in cell 1
  EXPECT_EXIT(check({1, -1, 2}), testing::ExitedWithCode(70),
              "sequence 42 .slot 1., layer 17, row 1: the sliding table's cell 1 holds -1 of 4");
  EXPECT_EXIT(check({1, 2, 4}), testing::ExitedWithCode(70), "cell 2 holds 4 of 4");
}

TEST_F(CpuOpsTest, RouterTakesTheBestWithTiesToTheLowerId) {
  const int hidden = 32, num_experts = 16, top_k = 4;
  OwnedBf16 scale(1, hidden), proj(num_experts, hidden), per_expert(1, num_experts);
  Fill(scale);
  Fill(proj);
  Fill(per_expert);
  // Experts 3 and 11 are the same: a tie.
  std::copy_n(proj.data.begin() + 3 * hidden, hidden, proj.data.begin() + 11 * hidden);
  Owned x(6, hidden), weights(6, top_k);
  Fill(x, 5.0);
  std::vector<int32_t> ids(6 * top_k, -1);
  const Tensor id_tensor = MakeTensor(ids.data(), DType::kI32, 6, top_k);
  scale.tensor = MakeTensor(scale.data.data(), DType::kBf16, hidden);
  per_expert.tensor = MakeTensor(per_expert.data.data(), DType::kBf16, num_experts);
  ops_->Router(id_tensor, weights.tensor, x.tensor, {scale.tensor, proj.tensor, per_expert.tensor},
               1e-6f);
  for (int t = 0; t < 6; ++t) {
    double mean = 0;
    for (int i = 0; i < hidden; ++i) mean += std::pow(double{x.at(t, i)}, 2) / hidden;
    std::vector<std::pair<double, int>> p;
    double sum = 0;
    for (int e = 0; e < num_experts; ++e) {
      double logit = 0;
      for (int i = 0; i < hidden; ++i)
        logit += x.at(t, i) / std::sqrt(mean + 1e-6) * ToFloat(scale.data[static_cast<size_t>(i)]) /
                 std::sqrt(double{hidden}) * proj.at(e, i);
      p.emplace_back(-std::exp(logit), e == 11 ? 11 : e);
      sum += std::exp(logit);
    }
    p[11].first = p[3].first;
    std::sort(p.begin(), p.end());
    double chosen = 0;
    for (int j = 0; j < top_k; ++j) chosen += -p[static_cast<size_t>(j)].first / sum;
    for (int j = 0; j < top_k; ++j) {
      const auto [negative, e] = p[static_cast<size_t>(j)];
      EXPECT_EQ(ids[static_cast<size_t>(t * top_k + j)], e);
      EXPECT_NEAR(weights.at(t, j),
                  -negative / sum / chosen * ToFloat(per_expert.data[static_cast<size_t>(e)]),
                  1e-5);
    }
  }
}

TEST_F(CpuOpsTest, ExpertsSumTheChosenMlps) {
  const int hidden = 24, width = 20, num_experts = 5, top_k = 2, rows = 7;
  OwnedBf16 gate_up(num_experts * 2 * width, hidden), down(num_experts * hidden, width);
  Fill(gate_up, 0.2);
  Fill(down, 0.2);
  const Tensor gu{gate_up.data.data(),
                  DType::kBf16,
                  3,
                  {num_experts, 2 * width, hidden, 0},
                  2 * width * hidden};
  const Tensor dn{
      down.data.data(), DType::kBf16, 3, {num_experts, hidden, width, 0}, hidden * width};
  Owned z(rows, hidden), weights(rows, top_k), out(rows, hidden);
  Fill(z);
  Fill(weights);
  std::vector<int32_t> ids;
  for (int t = 0; t < rows; ++t) {
    ids.push_back(t % num_experts);
    ids.push_back((t * 3 + 1) % num_experts);
  }
  ops_->Experts(out.tensor, z.tensor, MakeTensor(ids.data(), DType::kI32, rows, top_k),
                weights.tensor, gu, dn);
  for (int t = 0; t < rows; ++t) {
    std::vector<double> sum(hidden);
    for (int j = 0; j < top_k; ++j) {
      const int e = ids[static_cast<size_t>(t * top_k + j)];
      std::vector<double> a(width);
      for (int f = 0; f < width; ++f) {
        double g = 0, u = 0;
        for (int i = 0; i < hidden; ++i) {
          g += double{z.at(t, i)} * gate_up.at(e * 2 * width + f, i);
          u += double{z.at(t, i)} * gate_up.at(e * 2 * width + width + f, i);
        }
        a[static_cast<size_t>(f)] =
            0.5 * g * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))) * u;
      }
      for (int i = 0; i < hidden; ++i)
        for (int f = 0; f < width; ++f)
          sum[static_cast<size_t>(i)] +=
              double{weights.at(t, j)} * down.at(e * hidden + i, f) * a[static_cast<size_t>(f)];
    }
    for (int i = 0; i < hidden; ++i) EXPECT_NEAR(out.at(t, i), sum[static_cast<size_t>(i)], 1e-5);
  }
}

TEST_F(CpuOpsTest, CentroidHeadFillsTheRestWithTheSmallestMinusOne) {
  const int hidden = 16, vocab = 40, clusters = 8, top_k = 2, per = vocab / clusters;
  OwnedBf16 centroids(clusters, hidden), embed(vocab, hidden);
  Fill(centroids);
  Fill(embed);
  std::vector<int64_t> ordering(vocab);
  for (int i = 0; i < vocab; ++i) ordering[static_cast<size_t>(i)] = (i * 7) % vocab;
  Owned y(3, hidden), logits(3, vocab);
  Fill(y);
  ops_->CentroidLogits(logits.tensor, y.tensor, centroids.tensor,
                       MakeTensor(ordering.data(), DType::kI64, vocab), embed.tensor, top_k);
  for (int t = 0; t < 3; ++t) {
    std::vector<std::pair<double, int>> order;
    for (int c = 0; c < clusters; ++c) {
      double score = 0;
      for (int i = 0; i < hidden; ++i) score += double{y.at(t, i)} * centroids.at(c, i);
      order.emplace_back(-score, c);
    }
    std::sort(order.begin(), order.end());
    std::vector<double> expected(vocab, NAN);
    double smallest = INFINITY;
    for (int c = 0; c < top_k; ++c)
      for (int j = 0; j < per; ++j) {
        const auto id = static_cast<size_t>(
            ordering[static_cast<size_t>(order[static_cast<size_t>(c)].second * per + j)]);
        double logit = 0;
        for (int i = 0; i < hidden; ++i)
          logit += double{y.at(t, i)} * embed.at(static_cast<int64_t>(id), i);
        expected[id] = logit;
        smallest = std::min(smallest, logit);
      }
    for (int i = 0; i < vocab; ++i)
      EXPECT_NEAR(logits.at(t, i),
                  std::isnan(expected[static_cast<size_t>(i)]) ? smallest - 1
                                                               : expected[static_cast<size_t>(i)],
                  1e-5);
  }
}

TEST_F(CpuOpsTest, Bf16TensorsRoundOnStoreOnly) {
  const int cols = 64;
  Owned in(2, cols), wide(2, cols);
  Fill(in);
  OwnedBf16 narrow_in(2, cols), narrow(2, cols);
  for (size_t i = 0; i < in.data.size(); ++i) {
    narrow_in.data[i] = ToBf16(in.data[i]);
    in.data[i] = ToFloat(narrow_in.data[i]);
  }
  ops_->RmsNorm(wide.tensor, in.tensor, Tensor{}, 1e-6f, cols);
  ops_->RmsNorm(narrow.tensor, narrow_in.tensor, Tensor{}, 1e-6f, cols);
  for (size_t i = 0; i < narrow.data.size(); ++i)
    EXPECT_EQ(narrow.data[i].bits, ToBf16(wide.data[i]).bits);
}

}  // namespace
}  // namespace lapidary
