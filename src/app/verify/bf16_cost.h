// Bf16Cost: whether rows of logits computed in bf16 are as near to the reference's in f32 as the
// reference's own in bf16 are. No distance is right or wrong by itself: how far bf16 leads away
// depends on the weights. But both round the same weights at the same places (what crosses an op is
// bf16), so over many rows both are equally far, and a wrong page, mask or position is not.
#ifndef LAPIDARY_APP_VERIFY_BF16_COST_H_
#define LAPIDARY_APP_VERIFY_BF16_COST_H_

#include <span>
#include <string>
#include <vector>

#include "base/bf16.h"
#include "base/worker_pool.h"

namespace lapidary {

class Bf16Cost {
 public:
  // One row of V logits each.
  struct Row {
    const float* exact = nullptr;  // the reference in f32
    const Bf16* reference = nullptr;
    const float* ours = nullptr;
  };
  enum class Measure : uint8_t {
    kDivergence,  // Kullback-Leibler: of a model's own tokens
    kVariation,   // 1 - sum of min(p, q): of drafts, the share that would be accepted less often.
                  // A drafter that scores chosen clusters only has a divergence without bound.
  };

  explicit Bf16Cost(Measure measure);
  void Add(std::span<const Row> rows, int64_t vocab_size);

  struct Verdict {
    bool passed = false;
    std::string text;  // the figures and their limits
  };
  Verdict Judge() const;

  // Two rows are apart where the best token of one is not among the best kBest of the other.
  // Whether it is the weights' doing that `apart` of `steps` rows, not among these, are apart from
  // the reference's in f32: bf16 alone sets that share of the reference's own rows apart.
  static constexpr int64_t kBest = 5;
  Verdict JudgeApart(int64_t steps, int64_t apart) const;

 private:
  Measure measure_;
  WorkerPool pool_;
  std::vector<double> ours_, reference_;  // distance from `exact` of each row
  std::vector<uint8_t> apart_;            // the reference's from `exact`
};

}  // namespace lapidary

#endif  // LAPIDARY_APP_VERIFY_BF16_COST_H_
