// The mixture of experts at the 26B's sizes and small ones, and the drafters' centroid head.
#include <algorithm>
#include <array>

#include "ops/cases/op_case.h"
#include "ops/expert_tally.h"

namespace lapidary {
namespace {

struct MoeShape {
  const char* what;
  int64_t hidden, width, experts, top_k;
};
constexpr MoeShape k26B{"26B", 2816, 704, 128, 8}, kSmall{"small", 256, 64, 16, 4},
    kOdd{"odd", 136, 72, 24, 8};

class RouterCase : public OpCase {
 public:
  RouterCase(const MoeShape& shape, int64_t rows, bool norms = false)
      : shape_(shape), rows_(rows), norms_(norms) {}
  std::string Name() const override {
    return fmt::format("router{}/{}/T{}", norms_ ? "_norm" : "", shape_.what, rows_);
  }
  void Make(TensorSet& set) override {
    x_ = set.Normal(rows_, shape_.hidden, 4.0);
    scale_ = set.NormalVector(shape_.hidden, 0.2, 1.0);
    proj_ = set.Normal(shape_.experts, shape_.hidden, 1.5);
    expert_scale_ = set.NormalVector(shape_.experts, 0.2, 1.0);
    experts_ = set.Add(DType::kI32, rows_, shape_.top_k,
                       std::vector<int32_t>(static_cast<size_t>(rows_ * shape_.top_k), -7).data());
    weights_ = set.Output(DType::kF32, rows_, shape_.top_k);
    norm_ = set.NormalVector(shape_.hidden, 0.2, 1.0);
    z_ = set.Output(DType::kBf16, rows_, shape_.hidden);
  }
  void Run(Ops& ops, const TensorSet& set) override {
    const RouterWeights router = {set[scale_], set[proj_], set[expert_scale_]};
    if (norms_)
      ops.RouterNorm({set[z_], set[experts_], set[weights_]}, set[x_], router, set[norm_], 1e-6f);
    else
      ops.Router(set[experts_], set[weights_], set[x_], router, 1e-6f);
  }
  std::vector<CaseOutput> Outputs() const override {
    if (norms_) return {{experts_}, {weights_}, {z_}};
    return {{experts_}, {weights_}};
  }
  bool only_bench() const override { return rows_ == 8192; }
  int64_t Bytes() const override {
    return rows_ * shape_.hidden * 2 + shape_.experts * shape_.hidden * 2;
  }
  int64_t Flops() const override { return 2 * rows_ * shape_.hidden * shape_.experts; }
  bool in_bench() const override { return shape_.hidden == 2816 && (rows_ == 1 || rows_ >= 80); }

 private:
  MoeShape shape_;
  int64_t rows_;
  bool norms_;
  int x_ = 0, scale_ = 0, proj_ = 0, expert_scale_ = 0, experts_ = 0, weights_ = 0, norm_ = 0,
      z_ = 0;
};

// The experts alone, or with the norms at the end of a layer.
class ExpertsCase : public OpCase {
 public:
  enum class Kind { kPlain, kSkewed, kNorms, kLast };  // kLast: no next norm
  ExpertsCase(const MoeShape& shape, int64_t rows, Kind kind = Kind::kPlain, bool bench = false)
      : shape_(shape), rows_(rows), kind_(kind), bench_(bench) {}
  std::string Name() const override {
    constexpr const char* kNames[] = {"", "/skewed", "/norms", "/last"};
    return fmt::format("experts/{}/T{}{}", shape_.what, rows_, kNames[static_cast<int>(kind_)]);
  }
  void Make(TensorSet& set) override {
    z_ = set.Normal(rows_, shape_.hidden, 1.0);
    gate_up_ = Weights(set, shape_.experts, 2 * shape_.width, shape_.hidden);
    down_ = Weights(set, shape_.experts, shape_.hidden, shape_.width);
    std::vector<int32_t> ids;
    std::vector<float> weights;
    std::vector<bool> used(static_cast<size_t>(shape_.experts), false);
    for (int64_t t = 0; t < rows_; ++t) {
      std::vector<int32_t> all(static_cast<size_t>(shape_.experts));
      for (size_t e = 0; e < all.size(); ++e) all[e] = static_cast<int32_t>(e);
      std::shuffle(all.begin(), all.end(), set.rng());
      if (kind_ == Kind::kSkewed)
        std::iter_swap(all.begin(),
                       std::find(all.begin(), all.end(), 3));  // all rows want expert 3
      for (int64_t j = 0; j < shape_.top_k; ++j) {
        ids.push_back(all[static_cast<size_t>(j)]);
        used[static_cast<size_t>(ids.back())] = true;
        weights.push_back(static_cast<float>(set.rng()() % 1000) / 4000.0f);
      }
    }
    num_used_ = std::count(used.begin(), used.end(), true);
    ids_ = set.Add(DType::kI32, rows_, shape_.top_k, ids.data());
    weights_ = set.Add(DType::kF32, rows_, shape_.top_k, weights.data());
    out_ = set.Output(DType::kBf16, rows_, shape_.hidden);
    h_ = set.Normal(rows_, shape_.hidden, 3.0);
    x_ = set.Normal(rows_, shape_.hidden, 2.0);
    for (int& norm : norms_) norm = set.NormalVector(shape_.hidden, 0.2, 1.0);
    // The dense part is small beside the experts': where two large ones cancel, the last bit of a
    // product is many units of what is left.
    norms_[0] = set.NormalVector(shape_.hidden, 0.04, 0.2);
  }
  void Run(Ops& ops, const TensorSet& set) override {
    const Tensor gate_up = Cube(set[gate_up_], 2 * shape_.width, shape_.hidden),
                 down = Cube(set[down_], shape_.hidden, shape_.width);
    if (!HasNorms()) {
      ops.Experts(set[out_], set[z_], set[ids_], set[weights_], gate_up, down);
      return;
    }
    const Tensor next = kind_ == Kind::kLast ? Tensor{} : set[norms_[3]];
    ops.ExpertsNormAddNorm(set[h_], set[x_], set[out_], {set[z_], set[ids_], set[weights_]},
                           {gate_up, down},
                           {set[norms_[0]], set[norms_[1]], set[norms_[2]], next, 0.8f, 1e-6f});
  }
  std::vector<CaseOutput> Outputs() const override {
    if (!HasNorms()) return {{out_}};
    if (kind_ == Kind::kLast) return {{x_}};
    return {{x_}, {h_}};
  }
  // The experts' sum is a product; each of the four roundings behind it may fall the other way.
  Tolerance tolerance() const override {
    return HasNorms() ? Tolerance{4, 0.5} : kProductTolerance;
  }
  // Valid after Make: only chosen experts are read.
  int64_t Bytes() const override {
    return num_used_ * 3 * shape_.width * shape_.hidden * 2 + rows_ * shape_.hidden * 4;
  }
  int64_t Flops() const override { return 6 * rows_ * shape_.top_k * shape_.width * shape_.hidden; }
  bool in_bench() const override { return bench_; }
  int64_t num_rows() const override { return HasNorms() ? 0 : rows_; }
  void RunRows(Ops& ops, const TensorSet& set, std::span<const int64_t> rows) override {
    const RowSample z(set[z_], rows), ids(set[ids_], rows), weights(set[weights_], rows),
        out(set[out_], rows);
    ops.Experts(out.tensor(), z.tensor(), ids.tensor(), weights.tensor(),
                Cube(set[gate_up_], 2 * shape_.width, shape_.hidden),
                Cube(set[down_], shape_.hidden, shape_.width));
    out.CopyBack(set[out_]);
  }

 private:
  static int Weights(TensorSet& set, int64_t experts, int64_t rows, int64_t cols) {
    return set.Normal(experts * rows, cols, 0.05);
  }
  Tensor Cube(Tensor tensor, int64_t rows, int64_t cols) const {
    tensor.rank = 3;
    tensor.shape = {shape_.experts, rows, cols, 0};
    tensor.row_stride = rows * cols;
    return tensor;
  }

  bool HasNorms() const { return kind_ == Kind::kNorms || kind_ == Kind::kLast; }

  MoeShape shape_;
  int64_t rows_;
  Kind kind_;
  bool bench_;
  int64_t num_used_ = 0;
  int z_ = 0, gate_up_ = 0, down_ = 0, ids_ = 0, weights_ = 0, out_ = 0, h_ = 0, x_ = 0;
  std::array<int, 4> norms_{};
};

// What calls of different numbers of rows count of the experts that they read.
class TallyCase : public OpCase {
 public:
  std::string Name() const override { return "expert_tally/small"; }
  void Make(TensorSet& set) override {
    for (ExpertsCase& call : calls_) call.Make(set);
    const std::vector<int32_t> nothing(kCounts, -1);
    counts_ = set.Add(DType::kI32, kCounts / 2, 2, nothing.data());
  }
  void Run(Ops& ops, const TensorSet& set) override {
    const ExpertTally before = ReadExpertTally(ops);
    for (ExpertsCase& call : calls_) call.Run(ops, set);
    const ExpertTally since = ReadExpertTally(ops) - before;
    std::vector<int32_t> counts;
    for (const ExpertTally::Calls& calls : since.of_rows) {
      counts.push_back(static_cast<int32_t>(calls.num_calls));
      counts.push_back(static_cast<int32_t>(calls.num_experts));
    }
    set.device().CopyIn(set[counts_].data, counts.data(), int64_t{kCounts} * 4);
  }
  std::vector<CaseOutput> Outputs() const override { return {{counts_}}; }
  Tolerance tolerance() const override { return {0, 0}; }
  int64_t Bytes() const override { return int64_t{kCounts} * 4; }

 private:
  static constexpr size_t kCounts = 2 * (ExpertTally::kMaxRows + 1);
  std::array<ExpertsCase, 4> calls_ = {ExpertsCase(kSmall, 3), ExpertsCase(kSmall, 1),
                                       ExpertsCase(kSmall, 40), ExpertsCase(kSmall, 3)};
  int counts_ = 0;
};

class CentroidCase : public OpCase {
 public:
  CentroidCase(int64_t rows, int64_t vocab, int64_t centroids, int top_k, int64_t hidden)
      : rows_(rows), vocab_(vocab), centroids_(centroids), hidden_(hidden), top_k_(top_k) {}
  std::string Name() const override { return fmt::format("centroid/all/T{}xV{}", rows_, vocab_); }
  void Make(TensorSet& set) override {
    y_ = set.Normal(rows_, hidden_, 1.0);
    centers_ = set.Normal(centroids_, hidden_, 1.0);
    embed_ = set.Normal(vocab_, hidden_, 1.0);
    std::vector<int64_t> order(static_cast<size_t>(vocab_));
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
    std::shuffle(order.begin(), order.end(), set.rng());
    order_ = set.Vector(DType::kI64, vocab_, order.data());
    logits_ = set.Output(DType::kF32, rows_, vocab_);
  }
  void Run(Ops& ops, const TensorSet& set) override {
    ops.CentroidLogits(set[logits_], set[y_], set[centers_], set[order_], set[embed_], top_k_);
  }
  std::vector<CaseOutput> Outputs() const override { return {{logits_}}; }
  int64_t Bytes() const override {
    return rows_ * (vocab_ * 4 + (centroids_ + vocab_ / centroids_ * top_k_) * hidden_ * 2);
  }
  bool in_bench() const override { return vocab_ == 262144 && rows_ != 3; }

 private:
  int64_t rows_, vocab_, centroids_, hidden_;
  int top_k_;
  int y_ = 0, centers_ = 0, embed_ = 0, order_ = 0, logits_ = 0;
};

}  // namespace

void AddMoeCases(OpCases& cases) {
  using Kind = ExpertsCase::Kind;
  for (const int64_t rows : {1, 2, 7, 8, 9, 80})
    cases.push_back(std::make_unique<RouterCase>(k26B, rows));
  for (const int64_t rows : {1, 80, 320, 331, 8192})
    cases.push_back(std::make_unique<RouterCase>(k26B, rows, true));
  cases.push_back(std::make_unique<RouterCase>(kOdd, 13, true));
  for (const int64_t rows : {1, 40, 300})
    cases.push_back(std::make_unique<ExpertsCase>(kSmall, rows, Kind::kNorms));
  cases.push_back(std::make_unique<ExpertsCase>(kOdd, 19, Kind::kLast));
  cases.push_back(std::make_unique<ExpertsCase>(k26B, 3, Kind::kNorms));
  for (const int64_t rows : {33, 600}) cases.push_back(std::make_unique<RouterCase>(kSmall, rows));
  cases.push_back(std::make_unique<RouterCase>(kOdd, 5));
  for (const int64_t rows : {1, 3, 40, 150, 300})
    cases.push_back(std::make_unique<ExpertsCase>(kSmall, rows));
  for (const int64_t rows : {1, 19}) cases.push_back(std::make_unique<ExpertsCase>(kOdd, rows));
  cases.push_back(std::make_unique<ExpertsCase>(kSmall, 400, Kind::kSkewed));
  for (const int64_t rows : {1, 8, 80, 320, 8192})
    cases.push_back(std::make_unique<ExpertsCase>(k26B, rows, Kind::kPlain, true));
  cases.push_back(std::make_unique<TallyCase>());
  cases.push_back(std::make_unique<CentroidCase>(1, 2048, 64, 4, 64));
  cases.push_back(std::make_unique<CentroidCase>(5, 1000, 20, 7, 72));
  for (const int64_t rows : {1, 3, 80})
    cases.push_back(std::make_unique<CentroidCase>(rows, 262144, 2048, 32, 256));
}

}  // namespace lapidary
