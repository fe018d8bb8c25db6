// The folded cache against the split one: the same rows, the same answers; and what lies in it.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>

#include "kv/arena.h"
#include "ops/batch.h"
#include "ops/cpu/cpu_ops.h"

namespace lapidary {
namespace {

struct Shape {
  int num_heads, num_kv_heads, head_dim;
  double rotary_factor;
  int fold_columns() const { return 2 * static_cast<int>(rotary_factor * head_dim / 2); }
};
constexpr Shape kShapes[] = {
    {32, 4, 512, 0.25}, {4, 1, 32, 0.25}, {4, 2, 48, 0.5}, {2, 1, 16, 0.75}};
constexpr int kLength = 150, kWindow = 64;

// One sequence whose pages are out of order, with its cache of one full layer.
class Sequence {
 public:
  Sequence(const Shape& shape, bool folds)
      : shape_(shape),
        arena_(KvLayout::Make({{true, true, shape.num_kv_heads, shape.head_dim,
                                folds ? shape.fold_columns() : 0}},
                              kWindow, DType::kF32),
               6, HostDevice()),
        builder_(MakeTensor(pages_, DType::kI32, 1, 3), MakeTensor(pages_, DType::kI32, 1, 3),
                 kWindow) {
    arena_.Poison();
    spec_.kv = arena_.layer(0);
    spec_.full = true;
    spec_.num_heads = shape.num_heads;
    spec_.rope = {1e6, shape.rotary_factor};
  }

  // The rows [begin, end) of the sequence: stored, and their attention.
  std::vector<float> Run(std::vector<float> qkv, const QkvSpec& norms, int begin, int end) {
    const std::vector<int32_t> tokens(static_cast<size_t>(end - begin), 1);
    builder_.Clear();
    builder_.AddDecode(0, begin, tokens);
    const RowSet rows = builder_.Build().rows;
    const int64_t width = int64_t{shape_.num_heads} * shape_.head_dim;
    const Tensor in = MakeTensor(qkv.data(), DType::kF32, end - begin,
                                 static_cast<int64_t>(qkv.size()) / (end - begin));
    ops_->QkvNormRopeStore(in, norms, rows, spec_);
    std::vector<float> out(static_cast<size_t>((end - begin) * width));
    ops_->Attention(MakeTensor(out.data(), DType::kF32, end - begin, width), in.Cols(0, width),
                    rows, spec_);
    return out;
  }
  const LayerKv& kv() const { return spec_.kv; }
  int32_t page(int position) const { return pages_[position / kPageTokens]; }

 private:
  const Shape shape_;
  int32_t pages_[3] = {4, 1, 3};
  KvArena arena_;
  AttentionSpec spec_;
  BatchBuilder builder_;
  std::unique_ptr<Ops> ops_ = MakeCpuOps(2);
};

class FoldedTest : public testing::TestWithParam<Shape> {
 protected:
  std::vector<float> Normal(size_t count, double deviation, double mean = 0) {
    std::vector<float> values(count);
    for (float& value : values) value = static_cast<float>(mean + deviation * normal_(rng_));
    return values;
  }
  Tensor Vector(std::vector<float>& values) const {
    return MakeTensor(values.data(), DType::kF32, static_cast<int64_t>(values.size()));
  }

  const Shape shape_ = GetParam();
  const size_t dim_ = static_cast<size_t>(shape_.head_dim);
  std::mt19937 rng_{3};
  std::normal_distribution<double> normal_;
  std::vector<float> q_norm_ = Normal(dim_, 0.05, 0.3), k_norm_ = Normal(dim_, 0.1, 0.4);
  const QkvSpec norms_{Vector(q_norm_), Vector(k_norm_), true, true, true};
  const std::vector<float> qkv_ =
      Normal(kLength * static_cast<size_t>(shape_.num_heads + 2 * shape_.num_kv_heads) * dim_, 1);
};

TEST_P(FoldedTest, GivesTheAnswersOfTheSplitCache) {
  Sequence split(shape_, false), folded(shape_, true);
  const std::vector<float> expected = split.Run(qkv_, norms_, 0, kLength),
                           actual = folded.Run(qkv_, norms_, 0, kLength);
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(actual[i], expected[i], 2e-5) << i;
  // A query alone finds the weight of the keys that others stored.
  QkvSpec only_q = norms_;
  only_q.has_kv = false;
  const size_t width = qkv_.size() / kLength;
  const std::vector<float> last(qkv_.end() - static_cast<std::ptrdiff_t>(width), qkv_.end());
  const std::vector<float> again = folded.Run(last, only_q, kLength - 1, kLength);
  EXPECT_EQ(std::memcmp(again.data(), actual.data() + actual.size() - again.size(),
                        again.size() * sizeof(float)),
            0);
  // With another weight it finds other answers: the weight is looked at.
  only_q.k_norm = Vector(q_norm_);
  EXPECT_NE(folded.Run(last, only_q, kLength - 1, kLength), again);
}

// Row by row: K's columns that rotate, V's that do not, V's that do.
TEST_P(FoldedTest, RowsHoldTheSplitCachesBits) {
  Sequence split(shape_, false), folded(shape_, true);
  split.Run(qkv_, norms_, 0, kLength);
  folded.Run(qkv_, norms_, 0, kLength);
  const int half = shape_.head_dim / 2, pairs = shape_.fold_columns() / 2;
  const auto rotates = [&](int column) { return column % half < pairs; };
  for (int position = 0; position < kLength; ++position)
    for (int head = 0; head < shape_.num_kv_heads; ++head) {
      const int32_t page = split.page(position);
      const auto row = static_cast<size_t>(position % kPageTokens);
      const float *k = reinterpret_cast<float*>(split.kv().Keys(page, head)) + row * dim_,
                  *v = reinterpret_cast<float*>(split.kv().Values(page, head)) + row * dim_;
      std::vector<float> expected;
      for (int i = 0; i < shape_.head_dim; ++i)
        if (rotates(i)) expected.push_back(k[i]);
      for (int i = 0; i < shape_.head_dim; ++i)
        if (!rotates(i)) expected.push_back(v[i]);
      for (int i = 0; i < shape_.head_dim; ++i)
        if (rotates(i)) expected.push_back(v[i]);
      const float* actual =
          reinterpret_cast<float*>(folded.kv().Keys(page, head)) + row * expected.size();
      ASSERT_EQ(std::memcmp(actual, expected.data(), expected.size() * sizeof(float)), 0)
          << position;
    }
}

TEST(FoldedCache, HasNoValuesOfItsOwn) {
  Sequence folded(kShapes[1], true);
  EXPECT_EXIT(folded.kv().Values(1, 0), testing::ExitedWithCode(70), "V of a folded cache");
}

INSTANTIATE_TEST_SUITE_P(Shapes, FoldedTest, testing::ValuesIn(kShapes), [](const auto& shape) {
  return "dim" + std::to_string(shape.param.head_dim);
});

}  // namespace
}  // namespace lapidary
