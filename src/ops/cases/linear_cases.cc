// Linear at the models' shapes.
#include "ops/cases/op_case.h"

namespace lapidary {
namespace {

class LinearCase : public OpCase {
 public:
  LinearCase(const char* what, int64_t rows, int64_t n, int64_t k, bool bench = false,
             DType out = DType::kBf16)
      : what_(what), rows_(rows), n_(n), k_(k), bench_(bench), out_type_(out) {}
  std::string Name() const override {
    return fmt::format("linear/{}/T{}xN{}xK{}", what_, rows_, n_, k_);
  }
  void Make(TensorSet& set) override {
    in_ = set.Normal(rows_, k_, 1.0);
    weight_ = set.Normal(n_, k_, 0.03);
    out_ = set.Output(out_type_, rows_, n_);
  }
  void Run(Ops& ops, const TensorSet& set) override {
    // Three blocks as the model passes them: Q, K, V behind one another.
    const int64_t third = n_ / 3 / 8 * 8;
    const Tensor w = set[weight_];
    ops.Linear(set[out_], set[in_],
               {w.Rows(0, third), w.Rows(third, third), w.Rows(2 * third, n_ - 2 * third)});
  }
  std::vector<CaseOutput> Outputs() const override { return {{out_}}; }
  Tolerance tolerance() const override { return kProductTolerance; }
  int64_t Bytes() const override {
    return (n_ * k_ + rows_ * k_) * 2 + rows_ * n_ * SizeOf(out_type_);
  }
  int64_t Flops() const override { return 2 * rows_ * n_ * k_; }
  bool in_bench() const override { return bench_; }
  bool only_bench() const override { return Flops() > 100'000'000'000; }

 private:
  const char* what_;
  int64_t rows_, n_, k_;
  bool bench_;
  DType out_type_;
  int in_ = 0, weight_ = 0, out_ = 0;
};

// Gate and up with GELU (up_ of the case: none), or a product that gates another tensor.
class LinearGeluCase : public OpCase {
 public:
  LinearGeluCase(const char* what, int64_t rows, int64_t n, int64_t k, bool gates_other)
      : what_(what), rows_(rows), n_(n), k_(k), gates_other_(gates_other) {}
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
    const Tensor w = set[weight_];
    if (gates_other_)
      ops.LinearGeluMul(set[out_], set[in_], {w}, set[up_].Cols(n_, n_));
    else
      ops.LinearGelu(set[out_], set[in_], {w.Rows(0, n_ / 2), w.Rows(n_ / 2, n_ / 2)});
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
  bool in_bench() const override { return rows_ == 1 || rows_ == 80; }

 private:
  const char* what_;
  int64_t rows_, n_, k_;
  bool gates_other_;
  int in_ = 0, weight_ = 0, out_ = 0, up_ = 0;
};

class LinearSoftCapCase : public OpCase {
 public:
  LinearSoftCapCase(const char* what, int64_t rows, int64_t n, int64_t k)
      : what_(what), rows_(rows), n_(n), k_(k) {}
  std::string Name() const override {
    return fmt::format("linear_soft_cap/{}/T{}xN{}xK{}", what_, rows_, n_, k_);
  }
  void Make(TensorSet& set) override {
    std::vector<float> in(static_cast<size_t>(rows_ * k_));
    std::normal_distribution<float> normal(0.0f, 1.0f);
    for (float& value : in) value = normal(set.rng());
    in_ = set.Add(DType::kF32, rows_, k_, in.data());
    weight_ = set.Normal(n_, k_, 0.4);  // sums well beyond the cap
    out_ = set.Output(DType::kF32, rows_, n_);
  }
  void Run(Ops& ops, const TensorSet& set) override {
    ops.LinearSoftCap(set[out_], set[in_], {set[weight_]}, 30.0f);
  }
  std::vector<CaseOutput> Outputs() const override { return {{out_}}; }
  Tolerance tolerance() const override { return kProductTolerance; }
  int64_t Bytes() const override { return (n_ * k_ + rows_ * k_) * 2 + rows_ * n_ * 4; }
  int64_t Flops() const override { return 2 * rows_ * n_ * k_; }
  bool in_bench() const override { return n_ == 262144; }
  bool only_bench() const override { return n_ == 262144; }

 private:
  const char* what_;
  int64_t rows_, n_, k_;
  int in_ = 0, weight_ = 0, out_ = 0;
};

struct Shape {
  const char* what;
  int64_t n, k;
};
constexpr Shape kShapes[] = {
    {"31B_qkv", 16384, 5376},     {"31B_o", 5376, 8192},        {"31B_o_full", 5376, 16384},
    {"31B_gate_up", 43008, 5376}, {"31B_down", 5376, 21504},    {"26B_qkv", 8192, 2816},
    {"26B_o", 2816, 4096},        {"26B_gate_up", 4224, 2816},  {"26B_down", 2816, 2112},
    {"E4B_qkv", 3072, 2560},      {"E4B_o", 2560, 2048},        {"E4B_gate_up", 20480, 2560},
    {"E4B_down", 2560, 10240},    {"E4B_ple_gate", 256, 2560},  {"E4B_ple_up", 2560, 256},
    {"E2B_qkv", 2560, 1536},      {"E2B_gate_up", 12288, 1536}, {"E2B_down", 1536, 6144},
};
constexpr Shape kGateUps[] = {{"26B", 4224, 2816}, {"E4B", 20480, 2560}, {"E2B", 12288, 1536}},
                kPleGates[] = {{"E4B_ple", 256, 2560}, {"E2B_ple", 256, 1536}};

}  // namespace

void AddLinearCases(OpCases& cases) {
  for (const Shape& shape : kShapes) {
    cases.push_back(std::make_unique<LinearCase>(shape.what, 80, shape.n, shape.k, true));
    cases.push_back(std::make_unique<LinearCase>(shape.what, 1, shape.n, shape.k, true));
  }
  for (const int64_t rows : {1, 80}) {
    for (const Shape& shape : kGateUps)
      cases.push_back(std::make_unique<LinearGeluCase>(shape.what, rows, shape.n, shape.k, false));
    for (const Shape& shape : kPleGates)
      cases.push_back(std::make_unique<LinearGeluCase>(shape.what, rows, shape.n, shape.k, true));
  }
  for (const int64_t rows : {7, 16, 33, 64, 128, 300}) {
    cases.push_back(std::make_unique<LinearGeluCase>("small", rows, 384, 264, false));
    cases.push_back(std::make_unique<LinearGeluCase>("small", rows, 136, 264, true));
  }
  cases.push_back(std::make_unique<LinearGeluCase>("odd", 9, 144, 72, false));
  for (const int64_t rows : {1, 9, 80, 81})
    cases.push_back(std::make_unique<LinearSoftCapCase>("small", rows, 4100, 264));
  for (const int64_t rows : {1, 80})
    for (const int64_t hidden : {1536, 5376})
      cases.push_back(std::make_unique<LinearSoftCapCase>("head", rows, 262144, hidden));
  for (const int64_t rows : {0, 2, 7, 8, 16, 17, 33, 64, 65, 127, 128, 129, 320})
    cases.push_back(std::make_unique<LinearCase>("E4B_qkv", rows, 3072, 2560));
  cases.push_back(std::make_unique<LinearCase>("pebble", 5, 384, 256));
  cases.push_back(std::make_unique<LinearCase>("odd", 9, 136, 72));
  cases.push_back(std::make_unique<LinearCase>("head", 3, 4096, 2560, false, DType::kF32));
  cases.push_back(std::make_unique<LinearCase>("E4B_head", 80, 262144, 2560, true, DType::kF32));
  cases.push_back(std::make_unique<LinearCase>("31B_gate_up", 8192, 43008, 5376, true));
}

}  // namespace lapidary
