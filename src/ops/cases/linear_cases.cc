// Linear at the models' shapes.
#include <utility>

#include "ops/cases/model_products.h"
#include "ops/cases/op_case.h"

namespace lapidary {
namespace {

enum class Use { kTested, kTimedToo, kOnlyTimed };

class LinearCase : public OpCase {
 public:
  LinearCase(std::string what, int64_t rows, int64_t n, int64_t k, Use use = Use::kTested,
             DType out = DType::kBf16)
      : what_(std::move(what)), rows_(rows), n_(n), k_(k), use_(use), out_type_(out) {}
  std::string Name() const override {
    return fmt::format("linear/{}/T{}xN{}xK{}", what_, rows_, n_, k_);
  }
  void Make(TensorSet& set) override {
    in_ = set.Normal(rows_, k_, 1.0);
    weight_ = set.Normal(n_, k_, 0.03);
    out_ = set.Output(out_type_, rows_, n_);
  }
  void Run(Ops& ops, const TensorSet& set) override { Multiply(ops, set, set[out_], set[in_]); }
  int64_t num_rows() const override { return rows_; }
  void RunRows(Ops& ops, const TensorSet& set, std::span<const int64_t> rows) override {
    const RowSample in(set[in_], rows), out(set[out_], rows);
    Multiply(ops, set, out.tensor(), in.tensor());
    out.CopyBack(set[out_]);
  }
  std::vector<CaseOutput> Outputs() const override { return {{out_}}; }
  Tolerance tolerance() const override { return kProductTolerance; }
  int64_t Bytes() const override {
    return (n_ * k_ + rows_ * k_) * 2 + rows_ * n_ * SizeOf(out_type_);
  }
  int64_t Flops() const override { return 2 * rows_ * n_ * k_; }
  bool in_bench() const override { return use_ != Use::kTested; }
  bool only_bench() const override { return use_ == Use::kOnlyTimed; }

 private:
  // Three blocks as the model passes them: Q, K, V behind one another.
  void Multiply(Ops& ops, const TensorSet& set, Tensor out, Tensor in) const {
    const int64_t third = n_ / 3 / 8 * 8;
    const Tensor w = set[weight_];
    ops.Linear(out, in,
               {w.Rows(0, third), w.Rows(third, third), w.Rows(2 * third, n_ - 2 * third)});
  }

  std::string what_;
  int64_t rows_, n_, k_;
  Use use_;
  DType out_type_;
  int in_ = 0, weight_ = 0, out_ = 0;
};

// Gate and up with GELU (up_ of the case: none), or a product that gates another tensor.
class LinearGeluCase : public OpCase {
 public:
  LinearGeluCase(std::string what, int64_t rows, int64_t n, int64_t k, bool gates_other,
                 Use use = Use::kTested)
      : what_(std::move(what)), rows_(rows), n_(n), k_(k), gates_other_(gates_other), use_(use) {}
  std::string Name() const override {
    return fmt::format("linear_gelu{}/{}/T{}xN{}xK{}", gates_other_ ? "_mul" : "", what_, rows_, n_,
                       k_);
  }
  void Make(TensorSet& set) override {
    in_ = set.Normal(rows_, k_, 1.0);
    weight_ = set.Normal(n_, k_, 0.03);
    out_ = set.Output(DType::kBf16, rows_, n_);
    // Wider than what is read, as a layer's part of the per-layer inputs is.
    up_ = set.Normal(rows_, gates_other_ ? 2 * n_ : 8, 1.0);
  }
  void Run(Ops& ops, const TensorSet& set) override {
    Multiply(ops, set, set[out_], set[in_], set[up_]);
  }
  int64_t num_rows() const override { return rows_; }
  void RunRows(Ops& ops, const TensorSet& set, std::span<const int64_t> rows) override {
    const RowSample in(set[in_], rows), up(set[up_], rows), out(set[out_], rows);
    Multiply(ops, set, out.tensor(), in.tensor(), up.tensor());
    out.CopyBack(set[out_]);
  }
  std::vector<CaseOutput> Outputs() const override {
    if (gates_other_) return {{out_}};
    return {{out_, 0, n_ / 2}};
  }
  // A gate's rounding and an up's, each half a unit, are the definition's too; where a sum's last
  // bit differs they may fall the other way.
  Tolerance tolerance() const override { return kProductTolerance; }
  int64_t Bytes() const override { return (n_ * k_ + rows_ * k_ + rows_ * n_) * 2; }
  int64_t Flops() const override { return 2 * rows_ * n_ * k_; }
  bool in_bench() const override { return use_ != Use::kTested; }
  bool only_bench() const override { return use_ == Use::kOnlyTimed; }

 private:
  void Multiply(Ops& ops, const TensorSet& set, Tensor out, Tensor in, Tensor up) const {
    const Tensor w = set[weight_];
    if (gates_other_)
      ops.LinearGeluMul(out, in, {w}, up.Cols(n_, n_));
    else
      ops.LinearGelu(out, in, {w.Rows(0, n_ / 2), w.Rows(n_ / 2, n_ / 2)});
  }

  std::string what_;
  int64_t rows_, n_, k_;
  bool gates_other_;
  Use use_;
  int in_ = 0, weight_ = 0, out_ = 0, up_ = 0;
};

class LinearSoftCapCase : public OpCase {
 public:
  LinearSoftCapCase(std::string what, int64_t rows, int64_t n, int64_t k, Use use = Use::kTested)
      : what_(std::move(what)), rows_(rows), n_(n), k_(k), use_(use) {}
  std::string Name() const override {
    return fmt::format("linear_soft_cap/{}/T{}xN{}xK{}", what_, rows_, n_, k_);
  }
  void Make(TensorSet& set) override {
    std::vector<float> in(static_cast<size_t>(rows_ * k_));
    std::normal_distribution<float> normal(0.0f, 1.0f);
    for (float& value : in) {
      value = normal(set.rng());
      // What rounding the rows to bf16 costs is the small cases' to say: of the millions of sums of
      // a large one the worst is six deviations of that rounding off.
      if (is_large()) value = ToFloat(ToBf16(value));
    }
    in_ = set.Add(DType::kF32, rows_, k_, in.data());
    weight_ = set.Normal(n_, k_, 0.4);  // sums well beyond the cap
    out_ = set.Output(DType::kF32, rows_, n_);
  }
  void Run(Ops& ops, const TensorSet& set) override {
    ops.LinearSoftCap(set[out_], set[in_], {set[weight_]}, kCap);
  }
  int64_t num_rows() const override { return rows_; }
  void RunRows(Ops& ops, const TensorSet& set, std::span<const int64_t> rows) override {
    const RowSample in(set[in_], rows), out(set[out_], rows);
    ops.LinearSoftCap(out.tensor(), in.tensor(), {set[weight_]}, kCap);
    out.CopyBack(set[out_]);
  }
  std::vector<CaseOutput> Outputs() const override { return {{out_}}; }
  Tolerance tolerance() const override { return kProductTolerance; }
  int64_t Bytes() const override { return (n_ * k_ + rows_ * k_) * 2 + rows_ * n_ * 4; }
  int64_t Flops() const override { return 2 * rows_ * n_ * k_; }
  bool in_bench() const override { return use_ != Use::kTested; }
  bool only_bench() const override { return use_ == Use::kOnlyTimed; }

 private:
  static constexpr float kCap = 30;

  bool is_large() const { return n_ * k_ > (int64_t{1} << 24); }

  std::string what_;
  int64_t rows_, n_, k_;
  Use use_;
  int in_ = 0, weight_ = 0, out_ = 0;
};

std::unique_ptr<OpCase> CaseOf(const ModelProduct& p, int64_t rows, Use use) {
  switch (p.end) {
    case ProductEnd::kGated:
      return std::make_unique<LinearGeluCase>(p.what, rows, p.n, p.k, false, use);
    case ProductEnd::kGates:
      return std::make_unique<LinearGeluCase>(p.what, rows, p.n, p.k, true, use);
    case ProductEnd::kCapped:
      return std::make_unique<LinearSoftCapCase>(p.what, rows, p.n, p.k, use);
    case ProductEnd::kLogits:
      return std::make_unique<LinearCase>(p.what, rows, p.n, p.k, use, DType::kF32);
    case ProductEnd::kPlain:
      break;
  }
  return std::make_unique<LinearCase>(p.what, rows, p.n, p.k, use);
}

}  // namespace

void AddLinearCases(OpCases& cases) {
  for (const ModelProduct& product : ModelProducts()) {
    const auto holds = [&](const char* part) {
      return product.what.find(part) != std::string::npos;
    };
    const bool whole = !holds("/2");
    const Use use = whole && !holds("pebble") ? Use::kTimedToo : Use::kTested;
    for (const int64_t rows : {1, 80}) cases.push_back(CaseOf(product, rows, use));
    if (whole) cases.push_back(CaseOf(product, 320, use));
    // A chunk of a prompt.
    if (use == Use::kTimedToo && !holds("draft") && !holds("head"))
      cases.push_back(CaseOf(product, 8192, Use::kOnlyTimed));
  }
  for (const int64_t rows : {7, 16, 33, 64, 80, 128, 300}) {
    cases.push_back(std::make_unique<LinearGeluCase>("small", rows, 384, 264, false));
    cases.push_back(std::make_unique<LinearGeluCase>("small", rows, 136, 264, true));
  }
  cases.push_back(std::make_unique<LinearGeluCase>("odd", 9, 144, 72, false));
  for (const int64_t rows : {1, 9, 80, 81})
    cases.push_back(std::make_unique<LinearSoftCapCase>("small", rows, 4100, 264));
  cases.push_back(std::make_unique<LinearCase>("small", 24, 136, 520));
  for (const int64_t rows : {64, 128})
    cases.push_back(std::make_unique<LinearCase>("wide", rows, 4100, 264));
  for (const int64_t rows : {0, 2, 7, 8, 16, 17, 33, 64, 65, 127, 128, 129})
    cases.push_back(std::make_unique<LinearCase>("E4B_qkv", rows, 3072, 2560));
  cases.push_back(std::make_unique<LinearCase>("pebble", 5, 384, 256));
  cases.push_back(std::make_unique<LinearCase>("odd", 9, 136, 72));
  cases.push_back(std::make_unique<LinearCase>("head", 3, 4096, 2560, Use::kTested, DType::kF32));
  for (const int64_t rows : {1024, 8192})
    cases.push_back(std::make_unique<LinearCase>("31B_gate_up", rows, 43008, 5376, Use::kTimedToo));
}

}  // namespace lapidary
