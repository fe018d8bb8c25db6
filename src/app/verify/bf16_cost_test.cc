#include "app/verify/bf16_cost.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace lapidary {
namespace {

using testing::HasSubstr;

constexpr int64_t kVocab = 32;

// Rows of logits and two copies with errors of these deviations.
struct Rows {
  std::vector<float> exact, ours;
  std::vector<Bf16> reference;

  Rows(int count, double ours_error, double reference_error) {
    std::mt19937 rng(3);
    std::normal_distribution<double> normal(0.0, 1.0);
    for (int64_t i = 0; i < count * kVocab; ++i) {
      const double x = 3 * normal(rng);
      exact.push_back(static_cast<float>(x));
      ours.push_back(static_cast<float>(x + ours_error * normal(rng)));
      reference.push_back(ToBf16(static_cast<float>(x + reference_error * normal(rng))));
    }
  }
  Bf16Cost::Verdict Judge(Bf16Cost::Measure measure = Bf16Cost::Measure::kDivergence) const {
    Bf16Cost cost(measure);
    for (size_t i = 0; i < exact.size(); i += kVocab) {
      const Bf16Cost::Row row{&exact[i], &reference[i], &ours[i]};
      cost.Add({&row, 1}, kVocab);
    }
    return cost.Judge();
  }
};

TEST(Bf16Cost, EqualErrorsPassAndLargerOnesFail) {
  for (const auto measure : {Bf16Cost::Measure::kDivergence, Bf16Cost::Measure::kVariation})
    for (const int count : {100, 2000}) {
      EXPECT_TRUE(Rows(count, 0.1, 0.1).Judge(measure).passed) << count;
      EXPECT_TRUE(Rows(count, 0.02, 0.1).Judge(measure).passed) << count;
      EXPECT_FALSE(Rows(count, 0.15, 0.1).Judge(measure).passed) << count;
    }
}

// The divergence of (1/2, 1/2) from (1/4, 3/4) is log(4/3) / 2; half of min(p, q) is lost on 1/4.
TEST(Bf16Cost, HasTheValuesWorkedByHand) {
  const float exact[] = {0, 0}, ours[] = {0, std::log(3.0f)};
  const Bf16 reference[] = {ToBf16(0), ToBf16(1)};
  const Bf16Cost::Row row{exact, reference, ours};
  Bf16Cost divergence(Bf16Cost::Measure::kDivergence), variation(Bf16Cost::Measure::kVariation);
  divergence.Add({&row, 1}, 2);
  variation.Add({&row, 1}, 2);
  EXPECT_THAT(divergence.Judge().text, HasSubstr("mean 1.438e-01, the reference's 1.201e-01"));
  EXPECT_THAT(variation.Judge().text, HasSubstr("mean 2.500e-01, the reference's 2.311e-01"));
}

// Eight logits in falling order; the best of a row that is apart has gone behind five others, in
// another the best two have changed places.
TEST(Bf16Cost, AsManyStepsMayBeApartAsTheReferencesRows) {
  const auto judge = [](int rows_apart, int64_t steps_apart) {
    Bf16Cost cost(Bf16Cost::Measure::kDivergence);
    for (int row = 0; row < 100; ++row) {
      std::vector<float> exact = {8, 7, 6, 5, 4, 3, 2, 1};
      std::vector<Bf16> reference(exact.size());
      std::ranges::transform(exact, reference.begin(), ToBf16);
      if (row < rows_apart)
        reference[0] = ToBf16(2.5f);
      else
        std::swap(reference[0], reference[1]);
      const Bf16Cost::Row of{exact.data(), reference.data(), exact.data()};
      cost.Add({&of, 1}, 8);
    }
    return cost.JudgeApart(100, steps_apart).passed;
  };
  EXPECT_TRUE(judge(0, 0));
  EXPECT_FALSE(judge(0, 1));
  EXPECT_TRUE(judge(10, 19));  // 10 and three times their root
  EXPECT_FALSE(judge(10, 20));
}

TEST(Bf16Cost, AFewFarRowsFailByTheTail) {
  Rows rows(2000, 0.02, 0.1);
  std::mt19937 rng(5);
  std::normal_distribution<float> normal(0.0f, 0.5f);
  for (size_t i = 0; i < 30 * kVocab; ++i) rows.ours[i] = rows.exact[i] + normal(rng);
  EXPECT_FALSE(rows.Judge().passed);
}

TEST(Bf16Cost, ALogitThatIsNoNumberFails) {
  for (const float bad : {NAN, INFINITY}) {
    Rows rows(2000, 0.02, 0.1);
    rows.ours[77] = bad;
    EXPECT_FALSE(rows.Judge().passed) << bad;
    EXPECT_FALSE(rows.Judge(Bf16Cost::Measure::kVariation).passed) << bad;
  }
}

TEST(Bf16Cost, LogitsThatDecideEverythingShowNothing) {
  Rows rows(50, 0.02, 0.1);
  for (size_t i = 0; i < rows.exact.size(); i += kVocab) {
    rows.exact[i] = rows.ours[i] = 90;
    rows.reference[i] = ToBf16(90);
  }
  const Bf16Cost::Verdict verdict = rows.Judge();
  EXPECT_FALSE(verdict.passed);
  EXPECT_THAT(verdict.text, HasSubstr("show nothing"));
}

}  // namespace
}  // namespace lapidary
