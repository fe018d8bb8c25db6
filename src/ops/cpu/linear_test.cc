#include "ops/cpu/linear.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/bf16.h"

namespace lapidary::cpu {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr size_t kGuard = 9;  // elements before and after every buffer; odd, so nothing is aligned

struct Shape {
  int64_t m, n, k;
};

// Buffers of one call. Inputs outside the matrices are NaN, so reading past an end shows; outputs
// start as NaN, so a column left out shows.
struct Problem {
  Shape shape;
  int64_t x_stride, w_stride, y_stride;
  std::vector<float> x;
  std::vector<Bf16> w;

  Problem(const Shape& s, uint32_t seed, int64_t padding)
      : shape(s), x_stride(s.k + padding), w_stride(s.k + 2 * padding), y_stride(s.n + padding) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    x.assign(2 * kGuard + static_cast<size_t>(s.m * x_stride), kNan);
    w.assign(2 * kGuard + static_cast<size_t>(s.n * w_stride), ToBf16(kNan));
    for (int64_t row = 0; row < s.m; ++row)
      for (int64_t k = 0; k < s.k; ++k) X(row, k) = normal(rng);
    for (int64_t column = 0; column < s.n; ++column)
      for (int64_t k = 0; k < s.k; ++k) W(column, k) = ToBf16(normal(rng));
  }

  float& X(int64_t row, int64_t k) { return x[kGuard + static_cast<size_t>(row * x_stride + k)]; }
  Bf16& W(int64_t column, int64_t k) {
    return w[kGuard + static_cast<size_t>(column * w_stride + k)];
  }

  std::vector<float> EmptyOutput() const {
    return std::vector<float>(2 * kGuard + static_cast<size_t>(shape.m * y_stride), kNan);
  }
  LinearParams Params(std::vector<float>& y) const {
    LinearParams params;
    params.x = x.data() + kGuard;
    params.x_stride = x_stride;
    params.w = w.data() + kGuard;
    params.w_stride = w_stride;
    params.y = y.data() + kGuard;
    params.y_stride = y_stride;
    params.m = shape.m;
    params.n = shape.n;
    params.k = shape.k;
    return params;
  }
};

// The order of linear.h written from its text, term by term; shares nothing with the kernels.
float DefinedDot(Problem& problem, int64_t row, int64_t column) {
  std::array<float, 16> lane = {};
  for (int64_t l = 0; l < 16; ++l)
    for (int64_t k = l; k < problem.shape.k; k += 16)
      lane[static_cast<size_t>(l)] =
          std::fma(problem.X(row, k), ToFloat(problem.W(column, k)), lane[static_cast<size_t>(l)]);
  const auto by8 = [&](size_t l) { return lane[l] + lane[l + 8]; };
  const auto by4 = [&](size_t l) { return by8(l) + by8(l + 4); };
  const auto by2 = [&](size_t l) { return by4(l) + by4(l + 2); };
  return by2(0) + by2(1);
}

// The whole expected buffer, guards and stride padding included.
std::vector<float> Defined(Problem& problem) {
  std::vector<float> y = problem.EmptyOutput();
  for (int64_t row = 0; row < problem.shape.m; ++row)
    for (int64_t column = 0; column < problem.shape.n; ++column)
      y[kGuard + static_cast<size_t>(row * problem.y_stride + column)] =
          DefinedDot(problem, row, column);
  return y;
}

// Same bits; any NaN equals any NaN, because which payload survives an addition is not promised.
void ExpectSameBits(const std::vector<float>& actual, const std::vector<float>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    if (std::isnan(actual[i]) && std::isnan(expected[i])) continue;
    ASSERT_EQ(std::bit_cast<uint32_t>(actual[i]), std::bit_cast<uint32_t>(expected[i]))
        << "element " << i << " of " << actual.size() << ": " << actual[i] << ", not "
        << expected[i];
  }
}

// Every variant of this machine, with 1 and 2 threads, against the definition.
void CheckAllVariants(Problem& problem) {
  static WorkerPool one(1), two(2);
  const std::vector<float> expected = Defined(problem);
  for (int v = 0; v < kNumLinearVariants; ++v) {
    const LinearVariant& variant = LinearVariants()[v];
    if (!variant.supported) continue;
    for (WorkerPool* pool : {&one, &two}) {
      SCOPED_TRACE(testing::Message()
                   << variant.name << " m " << problem.shape.m << " n " << problem.shape.n << " k "
                   << problem.shape.k << " threads " << pool->num_threads());
      std::vector<float> y = problem.EmptyOutput();
      Linear(problem.Params(y), *pool, variant.kernel);
      ExpectSameBits(y, expected);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(LinearTest, PlainIsAlwaysThere) {
  EXPECT_STREQ(LinearVariants()[0].name, "plain");
  EXPECT_TRUE(LinearVariants()[0].supported);
}

TEST(LinearTest, EveryTailOfKEqualsTheDefinition) {
  for (int64_t k = 0; k <= 70; ++k)
    for (int64_t m : {1, 2, 5}) {
      Problem problem({m, 11, k}, static_cast<uint32_t>(100 * k + m), k % 4);
      CheckAllVariants(problem);
      if (HasFatalFailure()) return;
    }
}

TEST(LinearTest, EveryTileRemainderEqualsTheDefinition) {
  for (int64_t m = 0; m <= 17; ++m)
    for (int64_t n = 0; n <= 19; ++n) {
      Problem problem({m, n, 35}, static_cast<uint32_t>(100 * m + n), n % 3);
      CheckAllVariants(problem);
      if (HasFatalFailure()) return;
    }
}

// Several row blocks, several column ranges of the pool, and rows longer than a cache block.
TEST(LinearTest, LargeShapesEqualTheDefinition) {
  for (const Shape& shape : {Shape{1, 200, 1536}, Shape{3, 130, 1537}, Shape{33, 70, 301},
                             Shape{256, 67, 95}, Shape{70, 9, 2050}, Shape{6, 5, 40003}}) {
    Problem problem(shape, 7, 1);
    CheckAllVariants(problem);
    if (HasFatalFailure()) return;
  }
}

TEST(LinearTest, RandomShapesEqualTheDefinition) {
  std::mt19937 rng(3);
  for (uint32_t i = 0; i < 150; ++i) {
    const Shape shape{std::uniform_int_distribution<int64_t>(0, 40)(rng),
                      std::uniform_int_distribution<int64_t>(0, 150)(rng),
                      std::uniform_int_distribution<int64_t>(0, 100)(rng)};
    Problem problem(shape, i, i % 5);
    CheckAllVariants(problem);
    if (HasFatalFailure()) return;
  }
}

// Each row computed by itself has the bits it has in the batch, through the door the ops use.
TEST(LinearTest, ARowAloneEqualsTheRowInABatch) {
  WorkerPool pool(2);
  for (const Shape& shape : {Shape{9, 37, 70}, Shape{37, 129, 1000}}) {
    Problem problem(shape, 11, 3);
    std::vector<float> batch = problem.EmptyOutput(), alone = problem.EmptyOutput();
    const LinearParams all = problem.Params(batch);
    Linear(all, pool);
    for (int64_t row = 0; row < shape.m; ++row) {
      LinearParams params = problem.Params(alone);
      params.x += row * params.x_stride;
      params.y += row * params.y_stride;
      params.m = 1;
      Linear(params, pool);
    }
    ExpectSameBits(alone, batch);
    ExpectSameBits(batch, Defined(problem));
  }
}

// One special value at each place of K in turn, in the input and in the weight.
TEST(LinearTest, InfinityAndNanReachTheirOwnOutputsOnly) {
  for (float special : {kInf, -kInf, kNan})
    for (int64_t k = 0; k < 37; ++k) {
      Problem problem({6, 9, 37}, static_cast<uint32_t>(k), 0);
      problem.X(2, k) = special;
      problem.W(4, (k + 5) % 37) = ToBf16(special);
      CheckAllVariants(problem);
      if (HasFatalFailure()) return;
    }
}

TEST(LinearTest, SubnormalsOverflowAndSignedZerosEqualTheDefinition) {
  const float values[] = {0.0f, -0.0f, 1e-42f, -1e-42f, 1e-20f, -1e-20f, 3e38f, -3e38f, 1.0f};
  std::mt19937 rng(5);
  std::uniform_int_distribution<size_t> pick(0, std::size(values) - 1);
  for (int64_t k : {0, 1, 3, 16, 17, 33, 64}) {
    Problem problem({7, 13, k}, 1, 1);
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t row = 0; row < 7; ++row) problem.X(row, i) = values[pick(rng)];
      for (int64_t column = 0; column < 13; ++column)
        problem.W(column, i) = ToBf16(values[pick(rng)]);
    }
    CheckAllVariants(problem);
    if (HasFatalFailure()) return;
  }
  // Lanes start at +0, so a sum of -0 terms, and a lane without terms, is +0.
  Problem zeros({1, 1, 1}, 1, 0);
  zeros.X(0, 0) = -0.0f;
  zeros.W(0, 0) = ToBf16(1.0f);
  std::vector<float> y = zeros.EmptyOutput();
  WorkerPool pool(1);
  Linear(zeros.Params(y), pool);
  EXPECT_EQ(std::bit_cast<uint32_t>(y[kGuard]), 0u);
}

}  // namespace
}  // namespace lapidary::cpu
