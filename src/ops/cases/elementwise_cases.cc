// Norms, residuals, activations, gathers: widths of the four models, rows 0, 1, a decode batch and
// a chunk.
#include <algorithm>
#include <cmath>
#include <string_view>

#include "ops/cases/op_case.h"

namespace lapidary {
namespace {

struct ModelSizes {
  const char* name;
  int64_t hidden, mlp_width;
};
constexpr ModelSizes kModelSizes[] = {
    {"E2B", 1536, 6144}, {"E4B", 2560, 10240}, {"26B", 2816, 2112}, {"31B", 5376, 21504}};

// Whose width it is; else none's.
const char* ModelOf(int64_t width) {
  for (const ModelSizes& model : kModelSizes)
    if (width == model.hidden || width == model.mlp_width) return model.name;
  return "small";
}

// Of all models timed, of one also compared: the definition takes long.
bool IsOnlyTimed(int64_t rows, int64_t hidden) {
  return rows == 320 || (rows > 320 && hidden != 5376);
}
bool IsTimed(int64_t rows, int64_t width) {
  return ModelOf(width) != std::string_view("small") && (rows == 1 || rows >= 80);
}

class RmsNormCase : public OpCase {
 public:
  RmsNormCase(int64_t rows, int64_t cols, int64_t group, bool weighted, DType out)
      : rows_(rows), cols_(cols), group_(group), weighted_(weighted), out_type_(out) {}
  std::string Name() const override {
    return fmt::format("rms_norm/{}/T{}xD{}/group{}{}{}", ModelOf(group_), rows_, cols_, group_,
                       weighted_ ? "" : "/weightless", out_type_ == DType::kF32 ? "/f32" : "");
  }
  void Make(TensorSet& set) override {
    in_ = set.Normal(rows_, cols_, 3.0);
    weight_ = set.NormalVector(group_, 0.3, 1.0);
    out_ = set.Output(out_type_, rows_, cols_);
  }
  void Run(Ops& ops, const TensorSet& set) override {
    ops.RmsNorm(set[out_], set[in_], weighted_ ? set[weight_] : Tensor{}, 1e-6f, group_);
  }
  std::vector<CaseOutput> Outputs() const override { return {{out_}}; }
  int64_t Bytes() const override { return rows_ * cols_ * (2 + SizeOf(out_type_)) + group_ * 2; }
  bool in_bench() const override { return IsTimed(rows_, group_); }
  bool only_bench() const override { return IsOnlyTimed(rows_, group_); }

 private:
  int64_t rows_, cols_, group_;
  bool weighted_;
  DType out_type_;
  int in_ = 0, weight_ = 0, out_ = 0;
};

class NormAddNormCase : public OpCase {
 public:
  NormAddNormCase(int64_t rows, int64_t cols, bool next, float scale)
      : rows_(rows), cols_(cols), next_(next), scale_(scale) {}
  std::string Name() const override {
    return fmt::format("norm_add_norm/{}/T{}xD{}{}", ModelOf(cols_), rows_, cols_,
                       next_ ? "" : "/last");
  }
  void Make(TensorSet& set) override {
    h_ = set.Normal(rows_, cols_, 2.0);
    x_ = set.Normal(rows_, cols_, 5.0);
    post_ = set.NormalVector(cols_, 0.3, 1.0);
    next_norm_ = set.NormalVector(cols_, 0.3, 1.0);
  }
  void Run(Ops& ops, const TensorSet& set) override {
    ops.ReduceNormAddNorm(set[h_], set[x_], set[post_], next_ ? set[next_norm_] : Tensor{}, scale_,
                          1e-6f);
  }
  // The definition leaves the normed h behind when no norm follows; nobody reads it.
  std::vector<CaseOutput> Outputs() const override {
    return next_ ? std::vector<CaseOutput>{{h_}, {x_}} : std::vector<CaseOutput>{{x_}};
  }
  int64_t Bytes() const override { return rows_ * cols_ * (next_ ? 8 : 6) + cols_ * 4; }
  bool in_bench() const override { return next_ && IsTimed(rows_, cols_); }
  bool only_bench() const override { return IsOnlyTimed(rows_, cols_); }

 private:
  int64_t rows_, cols_;
  bool next_;
  float scale_;
  int h_ = 0, x_ = 0, post_ = 0, next_norm_ = 0;
};

class GeluMulCase : public OpCase {
 public:
  GeluMulCase(int64_t rows, int64_t width) : rows_(rows), width_(width) {}
  std::string Name() const override {
    return fmt::format("gelu_mul/{}/T{}xF{}", ModelOf(width_), rows_, width_);
  }
  void Make(TensorSet& set) override { gate_up_ = set.Normal(rows_, 2 * width_, 2.0); }
  void Run(Ops& ops, const TensorSet& set) override {
    const Tensor gate = set[gate_up_].Cols(0, width_);
    ops.GeluMul(gate, gate, set[gate_up_].Cols(width_, width_));
  }
  std::vector<CaseOutput> Outputs() const override { return {{gate_up_}}; }
  int64_t Bytes() const override { return rows_ * width_ * 6; }
  bool in_bench() const override { return IsTimed(rows_, width_); }

 private:
  int64_t rows_, width_;
  int gate_up_ = 0;
};

class AddScaleCase : public OpCase {
 public:
  AddScaleCase(int64_t rows, int64_t cols, bool add) : rows_(rows), cols_(cols), add_(add) {}
  std::string Name() const override {
    return fmt::format("add_scale/all/T{}xD{}{}", rows_, cols_, add_ ? "" : "/scale");
  }
  void Make(TensorSet& set) override {
    x_ = set.Normal(rows_, cols_, 2.0);
    y_ = set.Normal(rows_, cols_, 2.0);
  }
  void Run(Ops& ops, const TensorSet& set) override {
    ops.AddScale(set[x_], add_ ? set[y_] : Tensor{}, 0.73f);
  }
  std::vector<CaseOutput> Outputs() const override { return {{x_}}; }
  int64_t Bytes() const override { return rows_ * cols_ * (add_ ? 6 : 4); }

 private:
  int64_t rows_, cols_;
  bool add_;
  int x_ = 0, y_ = 0;
};

class SoftCapCase : public OpCase {
 public:
  SoftCapCase(int64_t rows, int64_t cols) : rows_(rows), cols_(cols) {}
  std::string Name() const override { return fmt::format("soft_cap/all/T{}xV{}", rows_, cols_); }
  void Make(TensorSet& set) override {
    std::vector<float> values(static_cast<size_t>(rows_ * cols_));
    std::normal_distribution<float> normal(0.0f, 40.0f);
    for (float& value : values) value = normal(set.rng());
    x_ = set.Add(DType::kF32, rows_, cols_, values.data());
  }
  void Run(Ops& ops, const TensorSet& set) override { ops.SoftCap(set[x_], 30.0f); }
  std::vector<CaseOutput> Outputs() const override { return {{x_}}; }
  int64_t Bytes() const override { return rows_ * cols_ * 8; }
  bool in_bench() const override { return cols_ == 262144; }

 private:
  int64_t rows_, cols_;
  int x_ = 0;
};

class PerLayerInputCase : public OpCase {
 public:
  PerLayerInputCase(int64_t rows, int64_t layers, int64_t width)
      : rows_(rows), layers_(layers), width_(width) {}
  std::string Name() const override {
    return fmt::format("per_layer_input/{}/T{}xL{}xP{}",
                       layers_ == 42   ? "E4B"
                       : layers_ == 35 ? "E2B"
                                       : "small",
                       rows_, layers_, width_);
  }
  void Make(TensorSet& set) override {
    context_ = set.Normal(rows_, layers_ * width_, 20.0);
    tokens_ = set.Normal(rows_, layers_ * width_, 1.0);
    norm_ = set.NormalVector(width_, 0.3, 1.0);
  }
  void Run(Ops& ops, const TensorSet& set) override {
    ops.PerLayerInput(set[context_], set[tokens_], set[norm_], 1.0f / std::sqrt(2560.0f), 1e-6f);
  }
  std::vector<CaseOutput> Outputs() const override { return {{context_}}; }
  int64_t Bytes() const override { return rows_ * layers_ * width_ * 6; }
  bool in_bench() const override { return layers_ > 6; }

 private:
  int64_t rows_, layers_, width_;
  int context_ = 0, tokens_ = 0, norm_ = 0;
};

// Embedding (a table and a scale), gather, and the compaction of rows in place.
class GatherCase : public OpCase {
 public:
  enum class Kind { kEmbed, kGather, kCompact, kRound };  // kRound: from f32
  GatherCase(Kind kind, int64_t rows, int64_t cols, int64_t table_rows)
      : kind_(kind), rows_(rows), cols_(cols), table_rows_(table_rows) {}
  std::string Name() const override {
    const char* names[] = {"embed", "gather", "compact", "gather_f32"};
    return fmt::format("{}/{}/T{}xD{}/of{}", names[static_cast<int>(kind_)], ModelOf(cols_), rows_,
                       cols_, table_rows_);
  }
  void Make(TensorSet& set) override {
    table_ = set.Normal(table_rows_, cols_, 1.0);
    if (kind_ == Kind::kRound) {
      std::normal_distribution<float> normal;
      std::vector<float> values(static_cast<size_t>(table_rows_ * cols_));
      for (float& value : values) value = normal(set.rng());
      table_ = set.Add(DType::kF32, table_rows_, cols_, values.data());
    }
    ids_.resize(static_cast<size_t>(rows_));
    for (int32_t& id : ids_)
      id = static_cast<int32_t>(set.rng()() % static_cast<uint64_t>(table_rows_));
    if (kind_ == Kind::kCompact) {
      std::vector<int32_t> all(static_cast<size_t>(table_rows_));
      for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int32_t>(i);
      std::shuffle(all.begin(), all.end(), set.rng());
      std::copy_n(all.begin(), ids_.size(), ids_.begin());
      std::sort(ids_.begin(), ids_.end());
    }
    if (rows_ > 0 && kind_ == Kind::kEmbed) ids_.back() = static_cast<int32_t>(table_rows_) - 1;
    if (rows_ > 1 && kind_ == Kind::kEmbed) ids_[1] = -1;  // padding
    out_ = kind_ == Kind::kCompact ? table_ : set.Output(DType::kBf16, rows_, cols_);
    rows_tensor_ = set.Ids(ids_);
  }
  void Run(Ops& ops, const TensorSet& set) override {
    if (kind_ == Kind::kEmbed)
      ops.Embed(set[out_], set[table_], set[rows_tensor_], 50.5f);
    else
      ops.GatherRows(set[out_].Rows(0, rows_), set[table_], set[rows_tensor_]);
  }
  std::vector<CaseOutput> Outputs() const override { return {{out_}}; }
  int64_t Bytes() const override { return rows_ * cols_ * 4; }
  bool in_bench() const override { return kind_ == Kind::kEmbed && rows_ > 1; }

 private:
  Kind kind_;
  int64_t rows_, cols_, table_rows_;
  std::vector<int32_t> ids_;
  int table_ = 0, out_ = 0, rows_tensor_ = 0;
};

class ReplaceIdsCase : public OpCase {
 public:
  std::string Name() const override { return "replace_ids/image"; }
  void Make(TensorSet& set) override {
    std::vector<int32_t> ids(1000);
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i % 7);
    ids_ = set.Ids(ids);
    out_ = set.Ids(std::vector<int32_t>(ids.size(), -1));
  }
  void Run(Ops& ops, const TensorSet& set) override {
    constexpr int kFrom[] = {2, 5};
    ops.ReplaceIds(set[out_], set[ids_], kFrom, 0);
  }
  std::vector<CaseOutput> Outputs() const override { return {{out_}}; }
  int64_t Bytes() const override { return 8000; }

 private:
  int ids_ = 0, out_ = 0;
};

class FillDummyCase : public OpCase {
 public:
  FillDummyCase(int64_t rows, int64_t cols) : rows_(rows), cols_(cols) {}
  std::string Name() const override { return fmt::format("fill_dummy/{}x{}", rows_, cols_); }
  void Make(TensorSet& set) override { out_ = set.Output(DType::kBf16, rows_, cols_); }
  void Run(Ops& ops, const TensorSet& set) override {
    ops.FillDummy(set[out_], {0x8f3a61c2b4d5e697u, 0.3f, 1.7e-5f});
  }
  std::vector<CaseOutput> Outputs() const override { return {{out_}}; }
  Tolerance tolerance() const override { return {0, 0}; }
  int64_t Bytes() const override { return 2 * rows_ * cols_; }

 private:
  int64_t rows_, cols_;
  int out_ = 0;
};

}  // namespace

void AddElementwiseCases(OpCases& cases) {
  using Kind = GatherCase::Kind;
  for (const ModelSizes& model : kModelSizes) {
    const int64_t hidden = model.hidden;
    for (const int64_t rows : {1, 80, 320, 4096}) {
      cases.push_back(std::make_unique<RmsNormCase>(rows, hidden, hidden, true, DType::kBf16));
      cases.push_back(std::make_unique<NormAddNormCase>(rows, hidden, true, 0.61f));
    }
    cases.push_back(std::make_unique<GeluMulCase>(80, model.mlp_width));
    for (const int64_t rows : {80, 2048})
      cases.push_back(std::make_unique<GatherCase>(Kind::kEmbed, rows, hidden, 30000));
  }
  cases.push_back(std::make_unique<RmsNormCase>(0, 1536, 1536, true, DType::kBf16));
  cases.push_back(std::make_unique<RmsNormCase>(3, 256, 256, true, DType::kF32));
  cases.push_back(std::make_unique<RmsNormCase>(5, 8192, 8192, true, DType::kF32));
  cases.push_back(std::make_unique<RmsNormCase>(7, 1024, 256, false, DType::kBf16));
  cases.push_back(std::make_unique<RmsNormCase>(7, 2048, 512, true, DType::kBf16));
  cases.push_back(std::make_unique<NormAddNormCase>(3, 512, false, 1.0f));
  cases.push_back(std::make_unique<NormAddNormCase>(0, 2560, true, 1.0f));
  cases.push_back(std::make_unique<GeluMulCase>(2048, 21504));
  cases.push_back(std::make_unique<GeluMulCase>(3, 256));
  for (const bool add : {true, false})
    cases.push_back(std::make_unique<AddScaleCase>(33, 2816, add));
  cases.push_back(std::make_unique<SoftCapCase>(3, 2048));
  cases.push_back(std::make_unique<SoftCapCase>(80, 262144));
  for (const int64_t layers : {35, 42})
    for (const int64_t rows : {1, 80})
      cases.push_back(std::make_unique<PerLayerInputCase>(rows, layers, 256));
  cases.push_back(std::make_unique<PerLayerInputCase>(2048, 42, 256));
  cases.push_back(std::make_unique<PerLayerInputCase>(5, 6, 64));
  cases.push_back(std::make_unique<ReplaceIdsCase>());
  cases.push_back(std::make_unique<FillDummyCase>(1, 1));
  cases.push_back(std::make_unique<FillDummyCase>(3, 131));
  cases.push_back(std::make_unique<FillDummyCase>(4096, 2816));
  cases.push_back(std::make_unique<GatherCase>(Kind::kEmbed, 1, 1536, 1000));
  cases.push_back(std::make_unique<GatherCase>(Kind::kGather, 33, 2560, 700));
  cases.push_back(std::make_unique<GatherCase>(Kind::kRound, 80, 5376, 80));
  cases.push_back(std::make_unique<GatherCase>(Kind::kCompact, 41, 2560, 300));
  cases.push_back(std::make_unique<GatherCase>(Kind::kCompact, 300, 1536, 300));
}

}  // namespace lapidary
