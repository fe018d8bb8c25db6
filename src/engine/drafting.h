// DraftPolicy: how many tokens are drafted ahead, and at which position. It changes speed only: the
// tokens are the same for any answer it gives. Pure; one thread.
#ifndef LAPIDARY_ENGINE_DRAFTING_H_
#define LAPIDARY_ENGINE_DRAFTING_H_

#include <array>
#include <cstdint>
#include <optional>

#include "engine/step_plan.h"

namespace lapidary {

struct DraftOptions {
  int max_drafts = 0;
  bool adaptive = true;                   // false: always max_drafts
  std::optional<DraftPosition> position;  // none: measured over the first bursts
};

class DraftPolicy {
 public:
  // Bursts of a loaded model that try both positions in turn.
  static constexpr int kTrialBursts = 256;

  explicit DraftPolicy(const DraftOptions& options) : options_(options) {}

  // For the next plan, with this many sequences that decode.
  int num_drafts(int num_decoding) const;
  DraftPosition position() const;
  // A step is planned with the position that position() gave.
  void Planned(bool drafts);
  // A burst made with `position` was verified.
  void Observe(DraftPosition position, int num_drafted, int num_accepted);
  // Set once, when the trial is over.
  bool TakeDecision();
  double acceptance(DraftPosition position) const;  // accepted / drafted

 private:
  struct Count {
    int64_t bursts = 0, drafted = 0, accepted = 0;
  };
  Count& of(DraftPosition position) { return counts_[static_cast<size_t>(position)]; }
  const Count& of(DraftPosition position) const { return counts_[static_cast<size_t>(position)]; }

  DraftOptions options_;
  std::array<Count, 2> counts_{};
  std::optional<DraftPosition> chosen_;
  bool decision_news_ = false;
  uint64_t num_planned_ = 0;
  double recent_ = 0.7;  // probability that a draft is accepted where the one before it was
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_DRAFTING_H_
