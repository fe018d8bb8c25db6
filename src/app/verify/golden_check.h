// GoldenCheck: compares a loaded checkpoint with expected values of the reference implementation,
// entry by entry. In f32 every value lies within `max_abs` of the reference's. In bf16 rows of
// logits are as near to the reference's f32 as its own bf16 is (Bf16Cost), and greedy tokens are
// among the other's best few but for as many as that bf16 leaves out.
#ifndef LAPIDARY_APP_VERIFY_GOLDEN_CHECK_H_
#define LAPIDARY_APP_VERIFY_GOLDEN_CHECK_H_

#include <functional>
#include <string>
#include <vector>

#include "app/verify/bf16_cost.h"
#include "app/verify/golden_file.h"
#include "model/loader.h"
#include "model/solo_session.h"

namespace lapidary {

struct CheckCounts {
  int passed = 0, failed = 0, skipped = 0;
};

class GoldenCheck {
 public:
  struct Options {
    int chunk = 0;  // prompt tokens a step; 0: at once
    double max_abs = 1e-3;
    DType dtype = DType::kF32;  // activations and KV
    KvFold kv_fold = KvFold::kAuto;
  };
  // drafter may be null: draft entries are then skipped. print gets one line a check.
  GoldenCheck(const Checkpoint& target, const Checkpoint* drafter, Ops& ops, const Options& options,
              std::function<void(const std::string&)> print);

  // Errors: an entry whose shape or ids cannot belong to this model, named by its key.
  Result<CheckCounts> Run(const Goldens& goldens);

 private:
  struct Difference {
    double largest = 0;
    int64_t row = 0, column = 0;
    bool finite = true;
    void Update(int64_t r, const float* ours, const float* golden, int64_t count);
  };

  bool rounds() const { return options_.dtype == DType::kBf16; }
  Result<std::vector<TextEntry>> ReadTexts(const Goldens& goldens);
  void CheckText(const TextEntry& entry, std::vector<float>& last_hidden);
  void CheckGreedy(const TextEntry& entry, double logit_difference);
  void CheckDraft(const TextEntry& text, const DraftEntry& entry, DraftPosition position,
                  const std::vector<float>& last_hidden);
  void CheckDraftTokens(const DraftEntry& entry, const Difference& difference,
                        const std::vector<std::pair<size_t, int32_t>>& other);
  // The prompt as served: only its last row is asked for, so rows may stop early.
  StepOutput Prefill(std::span<const int32_t> ids);
  bool Report(const std::string& name, const Difference& difference);
  void Report(const char* name, const Bf16Cost& cost);
  void Count(bool passed, const std::string& line);

  const Checkpoint& target_;
  const Checkpoint* drafter_;
  Ops& ops_;
  Options options_;
  std::function<void(const std::string&)> print_;
  std::unique_ptr<SoloSession> session_;
  Bf16Cost text_cost_{Bf16Cost::Measure::kDivergence}, draft_cost_{Bf16Cost::Measure::kVariation};
  int64_t greedy_steps_ = 0, greedy_apart_ = 0;  // of a run in bf16, in all texts
  CheckCounts counts_;
};

}  // namespace lapidary

#endif  // LAPIDARY_APP_VERIFY_GOLDEN_CHECK_H_
