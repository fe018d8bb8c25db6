// Q, K and V into the cache, and attention over it: every group size, windows and page borders,
// decode and verify rows.
#include <algorithm>
#include <iterator>
#include <string_view>

#include "ops/cases/kv_cases.h"

namespace lapidary {
namespace {

constexpr AttentionShape kSliding31B{"31B", 32, 16, 256, 1024}, kFull31B{"31B", 32, 4, 512, 0};
constexpr AttentionShape kSliding26B{"26B", 16, 8, 256, 1024}, kFull26B{"26B", 16, 2, 512, 0};
constexpr AttentionShape kSlidingE4B{"E4B", 8, 2, 256, 512}, kFullE4B{"E4B", 8, 2, 512, 0};
constexpr AttentionShape kSlidingE2B{"E2B", 8, 1, 256, 512}, kFullE2B{"E2B", 8, 1, 512, 0};
constexpr AttentionShape kHalf31B{"31B_TP2", 16, 2, 512, 0},
    kDrafterE4B{"E4B_drafter", 4, 2, 256, 512};
// K folded into V; groups of 2 and 4 are in no published model that folds.
constexpr AttentionShape kFolded31B{"31B_folded", 32, 4, 512, 0, 128},
    kFolded26B{"26B_folded", 16, 2, 512, 0, 128}, kFoldedGroup4{"folded_group4", 8, 2, 512, 0, 128},
    kFoldedGroup2{"folded_group2", 4, 2, 512, 0, 128};

constexpr AttentionShape kModelShapes[] = {kSliding31B, kFull31B,   kFolded31B,  kSliding26B,
                                           kFull26B,    kFolded26B, kSlidingE4B, kFullE4B,
                                           kSlidingE2B, kFullE2B};
// As small as the kernels take them: what the sanitizers see.
constexpr AttentionShape kSmallShapes[] = {
    {"small", 4, 2, 256, 128}, {"small", 4, 1, 512, 0}, {"small_folded", 4, 1, 512, 0, 128}};

class QkvStoreCase : public OpCase {
 public:
  QkvStoreCase(const char* what, const AttentionShape& shape, std::vector<CaseSequence> sequences,
               bool has_q, bool has_kv, bool k_eq_v)
      : what_(what),
        paged_(shape, std::move(sequences)),
        has_q_(has_q),
        has_kv_(has_kv),
        k_eq_v_(k_eq_v) {}
  std::string Name() const override {
    return fmt::format("qkv_store/{}{}/{}", paged_.shape().model,
                       paged_.shape().window > 0 ? "" : "_full", what_);
  }
  void Make(TensorSet& set) override {
    paged_.Make(set, false);
    const int64_t dim = paged_.shape().head_dim;
    q_width_ = has_q_ ? paged_.shape().num_heads * dim : 0;
    const int64_t width = q_width_ + (has_kv_ ? dim * 2 * paged_.shape().num_kv_heads : 0);
    qkv_ = set.Normal(paged_.num_rows(), width, 2.0);
    q_norm_ = set.NormalVector(dim, 0.2, 1.0);
    k_norm_ = set.NormalVector(dim, 0.2, 1.0);
  }
  void Run(Ops& ops, const TensorSet& set) override {
    ops.QkvNormRopeStore(set[qkv_], {set[q_norm_], set[k_norm_], has_q_, has_kv_, k_eq_v_},
                         paged_.Rows(set), paged_.Spec(set));
  }
  std::vector<CaseOutput> Outputs() const override {
    std::vector<CaseOutput> outputs;
    if (has_q_) outputs.push_back({qkv_, 0, q_width_});
    if (has_kv_) outputs.push_back({paged_.cache()});
    if (has_kv_ && paged_.has_scratch()) outputs.push_back({paged_.scratch()});
    return outputs;
  }
  // Norm, RoPE and output each round: an element whose first rounding falls the other way may end
  // two units off.
  int64_t Bytes() const override {
    const int64_t dim = paged_.shape().head_dim, kv = paged_.shape().num_kv_heads;
    const int64_t read = has_kv_ ? kv * dim * (k_eq_v_ ? 1 : 2) : 0;
    const int64_t stored =
        has_kv_ ? kv * KvRowColumns(paged_.shape().head_dim, paged_.shape().fold_columns) : 0;
    const int64_t q = has_q_ ? dim * 2 * paged_.shape().num_heads : 0;
    return paged_.num_rows() * (q + read + stored) * 2;
  }
  bool in_bench() const override {
    return std::string_view(what_).starts_with("b80") || only_bench();
  }
  bool only_bench() const override { return what_ == std::string_view("chunk_8192"); }

 private:
  const char* what_;
  PagedCase paged_;
  bool has_q_, has_kv_, k_eq_v_;
  int64_t q_width_ = 0;
  int qkv_ = 0, q_norm_ = 0, k_norm_ = 0;
};

// The pages of a window, to scratch.
class GatherWindowCase : public OpCase {
 public:
  explicit GatherWindowCase(const AttentionShape& shape)
      : paged_(shape, {{shape.window + 130, 1}, {shape.window + 300, 170, true}}) {}
  std::string Name() const override {
    return fmt::format("gather_window/{}", paged_.shape().model);
  }
  void Make(TensorSet& set) override {
    paged_.Make(set, true);
    // The first sequence's pages are as good as any.
    for (int i = 0; i < 5; ++i) copies_.push_back({static_cast<SlidingPage>(i + 1), 5 - i});
  }
  void Run(Ops& ops, const TensorSet& set) override { ops.GatherWindow(copies_, paged_.Spec(set)); }
  std::vector<CaseOutput> Outputs() const override { return {{paged_.scratch()}}; }
  int64_t Bytes() const override {
    return static_cast<int64_t>(copies_.size()) * 2 * 2 * kPageTokens *
           paged_.shape().num_kv_heads * paged_.shape().head_dim * 2;
  }

 private:
  PagedCase paged_;
  std::vector<WindowCopy> copies_;
};

class AttentionCase : public OpCase {
 public:
  AttentionCase(std::string what, const AttentionShape& shape, std::vector<CaseSequence> sequences,
                bool bench = false)
      : what_(std::move(what)), paged_(shape, std::move(sequences)), bench_(bench) {}
  std::string Name() const override {
    return fmt::format("attention_{}/{}/{}", paged_.shape().window > 0 ? "sliding" : "full",
                       paged_.shape().model, what_);
  }
  void Make(TensorSet& set) override {
    paged_.Make(set, true);
    const int64_t width = int64_t{paged_.shape().num_heads} * paged_.shape().head_dim;
    q_ = set.Normal(paged_.num_rows(), width, paged_.shape().head_dim == 256 ? 0.35 : 0.25);
    out_ = set.Output(DType::kBf16, paged_.num_rows(), width);
  }
  void Run(Ops& ops, const TensorSet& set) override {
    ops.Attention(set[out_], set[q_], paged_.Rows(set), paged_.Spec(set));
  }
  std::vector<CaseOutput> Outputs() const override { return {{out_}}; }
  Tolerance tolerance() const override { return kAttentionTolerance; }
  int64_t Bytes() const override {
    const AttentionShape& s = paged_.shape();
    return 2 * (paged_.VisibleKeys() * s.num_kv_heads * KvRowColumns(s.head_dim, s.fold_columns) +
                2 * paged_.num_rows() * s.num_heads * s.head_dim);
  }
  int64_t Flops() const override {
    return 4 * paged_.VisiblePairs() * paged_.shape().num_heads * paged_.shape().head_dim;
  }
  bool in_bench() const override { return bench_; }
  int64_t num_rows() const override { return paged_.num_rows(); }
  // The definition finds a chunk row's keys by the row's own chunk, position and key end.
  void RunRows(Ops& ops, const TensorSet& set, std::span<const int64_t> rows) override {
    RowSet few = paged_.Rows(set);
    const RowSample q(set[q_], rows), out(set[out_], rows), positions(few.positions, rows),
        key_ends(few.key_ends, rows), slots(few.slots, rows), chunks(few.chunks, rows);
    few.positions = positions.tensor();
    few.key_ends = key_ends.tensor();
    few.slots = slots.tensor();
    few.chunks = chunks.tensor();
    ops.Attention(out.tensor(), q.tensor(), few, paged_.Spec(set));
    out.CopyBack(set[out_]);
  }

 private:
  std::string what_;
  PagedCase paged_;
  bool bench_;
  int q_ = 0, out_ = 0;
};

void AddStores(OpCases& cases) {
  // Positions at page borders and at the far end, where an angle is 262,143 rad.
  const std::vector<CaseSequence> far = {{1, 1},     {64, 2},     {65, 3},
                                         {65536, 1}, {131072, 2}, {262144, 1}};
  const std::vector<CaseSequence> batch(80, CaseSequence{1500, 1});
  for (const AttentionShape& shape : {kSliding31B, kSlidingE4B, kSlidingE2B, kFullE4B, kFullE2B})
    cases.push_back(std::make_unique<QkvStoreCase>("far", shape, far, true, true, false));
  for (const AttentionShape& shape : {kFull31B, kFull26B, kFolded31B, kFolded26B})
    cases.push_back(std::make_unique<QkvStoreCase>("far_k_eq_v", shape, far, true, true, true));
  // A drafter's query, for the cache of its target.
  cases.push_back(std::make_unique<QkvStoreCase>("only_q", kFoldedGroup4, far, true, false, true));
  cases.push_back(std::make_unique<QkvStoreCase>("only_q", kFullE4B, far, true, false, false));
  cases.push_back(std::make_unique<QkvStoreCase>("only_kv", kSlidingE4B, far, false, true, false));
  cases.push_back(std::make_unique<QkvStoreCase>(
      "chunk", kSliding26B, std::vector<CaseSequence>{{700, 333, true}, {65, 1}, {130, 130, true}},
      true, true, false));
  for (const AttentionShape& shape : kModelShapes) {
    const bool k_eq_v = shape.window == 0 && shape.num_heads > 8;
    cases.push_back(std::make_unique<QkvStoreCase>("b80", shape, batch, true, true, k_eq_v));
    cases.push_back(std::make_unique<QkvStoreCase>(
        "chunk_8192", shape, std::vector<CaseSequence>{{8192, 8192, true}}, true, true, k_eq_v));
  }
}

void AddDecode(OpCases& cases) {
  std::vector<AttentionShape> shapes(std::begin(kModelShapes), std::end(kModelShapes));
  shapes.insert(shapes.end(), {kHalf31B, kDrafterE4B, kFoldedGroup4, kFoldedGroup2});
  for (const AttentionShape& shape : shapes) {
    const int w = shape.window > 0 ? shape.window : 1024;
    // One key, page borders, window borders, and more.
    const std::vector<CaseSequence> borders = {
        {1, 1},     {2, 1}, {63, 1},    {64, 1},     {65, 1},     {127, 1},    {257, 1},
        {w - 1, 1}, {w, 1}, {w + 1, 1}, {w + 63, 1}, {w + 64, 1}, {w + 65, 1}, {3 * w + 7, 1}};
    cases.push_back(std::make_unique<AttentionCase>("borders", shape, borders));
    for (const int q : {2, 4, 5, 9}) {
      std::vector<CaseSequence> verify;
      verify.reserve(borders.size());
      for (const CaseSequence& s : borders) verify.push_back({std::max(s.context, q), q});
      cases.push_back(std::make_unique<AttentionCase>(fmt::format("verify{}", q), shape, verify));
    }
    cases.push_back(
        std::make_unique<AttentionCase>("one", shape, std::vector<CaseSequence>{{2500, 1}}));
    // As a graph has them.
    cases.push_back(std::make_unique<AttentionCase>(
        "padding", shape, std::vector<CaseSequence>{{w + 9, 1}, {90, 1}, {0, 6}}));
    cases.push_back(std::make_unique<AttentionCase>(
        "padding4", shape, std::vector<CaseSequence>{{w + 9, 4}, {90, 3}, {0, 11}}));
    cases.push_back(std::make_unique<AttentionCase>(
        "padding200", shape, std::vector<CaseSequence>{{w + 9, 1}, {90, 1}, {0, 200}}));
    // Chunks beside decode rows; a chunk of one row, page and tile borders, one that begins past
    // its window.
    cases.push_back(
        std::make_unique<AttentionCase>("mixed", shape,
                                        std::vector<CaseSequence>{{900, 1},
                                                                  {w + 200, 150, true},
                                                                  {70, 70, true},
                                                                  {33, 1},
                                                                  {64, 1, true},
                                                                  {65, 65, true},
                                                                  {2 * w + 3, w + 70, true},
                                                                  {w + 64, 128, true}}));
  }
}

void AddSmall(OpCases& cases) {
  for (const AttentionShape& shape : kSmallShapes) {
    const std::vector<CaseSequence> sequences = {
        {150, 1}, {64, 9}, {70, 70, true}, {300, 100, true}};
    cases.push_back(std::make_unique<AttentionCase>("chunks", shape, sequences));
    cases.push_back(std::make_unique<AttentionCase>(
        "verify", shape, std::vector<CaseSequence>{{200, 5}, {65, 9}, {9, 9}, {0, 12}}));
    cases.push_back(std::make_unique<AttentionCase>("padding", shape,
                                                    std::vector<CaseSequence>{{200, 1}, {0, 5}}));
  }
  // More items of a window than blocks fit beside one another, and nearly as many as do.
  const AttentionShape pairs{"small", 4, 2, 256, 128}, fours{"small_group4", 8, 2, 256, 128};
  const auto add = [&](const char* what, const AttentionShape& shape, int count, int rows) {
    std::vector<CaseSequence> sequences;
    sequences.reserve(static_cast<size_t>(count) + 1);
    for (int i = 0; i < count; ++i) sequences.push_back({rows + (i % 15 == 0 ? 200 : i % 8), rows});
    sequences.push_back({0, 10});
    cases.push_back(std::make_unique<AttentionCase>(what, shape, std::move(sequences)));
  };
  add("crowd", pairs, 150, 1);
  add("crowd_verify", fours, 70, 5);
  add("half_crowd", pairs, 100, 1);
}

void AddBench(OpCases& cases) {
  const auto batch = [](int b, int context, int q) {
    return std::vector<CaseSequence>(static_cast<size_t>(b), {context, q, false});
  };
  const auto add = [&](std::string what, const AttentionShape& shape,
                       std::vector<CaseSequence> sequences) {
    cases.push_back(
        std::make_unique<AttentionCase>(std::move(what), shape, std::move(sequences), true));
  };
  for (const AttentionShape& shape : kModelShapes) {
    add("b1", shape, batch(1, 1500, 1));
    add("b8", shape, batch(8, 1500, 1));
    add("b80", shape, batch(80, 1500, 1));
    add("b80_q4", shape, batch(80, 1500, 4));
    add("chunk_8192", shape, {{8192, 8192, true}});
  }
  add("b80_8500", kFull31B, batch(80, 8500, 1));
  add("b1_32k", kFull31B, batch(1, 32768, 1));
  add("b80_8500", kFolded31B, batch(80, 8500, 1));
  add("b1_32k", kFolded31B, batch(1, 32768, 1));
}

}  // namespace

void AddAttentionCases(OpCases& cases) {
  for (const AttentionShape& shape : {kSliding31B, kSlidingE2B})
    cases.push_back(std::make_unique<GatherWindowCase>(shape));
  AddStores(cases);
  AddDecode(cases);
  AddSmall(cases);
  AddBench(cases);
}

}  // namespace lapidary
