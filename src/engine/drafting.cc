#include "engine/drafting.h"

#include <algorithm>
#include <utility>

namespace lapidary {
namespace {

// A draft costs a row of the verifying step and a pass of the drafter. Against the weights that a
// step reads for all its rows this is little for one sequence and grows with every further one.
constexpr double kRowCost = 0.12, kRowCostPerSequence = 0.03;
constexpr double kMemory = 1.0 / 64;  // weight of one burst in the recent acceptance

}  // namespace

int DraftPolicy::num_drafts(int num_decoding) const {
  if (!options_.adaptive) return options_.max_drafts;
  // The j-th draft counts only if all before it are accepted: it is worth recent^j tokens.
  const double cost = std::min(kRowCost + kRowCostPerSequence * std::max(0, num_decoding - 1), 0.9);
  int count = 0;
  for (double worth = recent_; count < options_.max_drafts && worth > cost; worth *= recent_)
    ++count;
  return std::max(count, std::min(1, options_.max_drafts));  // one is needed to see a change
}

DraftPosition DraftPolicy::position() const {
  if (options_.position) return *options_.position;
  if (chosen_) return *chosen_;
  return num_planned_ % 2 == 0 ? DraftPosition::kNewest : DraftPosition::kLastKv;
}

void DraftPolicy::Planned(bool drafts) { num_planned_ += drafts; }

void DraftPolicy::Observe(DraftPosition position, int num_drafted, int num_accepted) {
  if (num_drafted == 0) return;
  Count& count = of(position);
  ++count.bursts;
  count.drafted += num_drafted;
  count.accepted += num_accepted;
  // Of the drafts that were looked at, num_accepted were right and, unless all were, one was not.
  const double looked_at = num_accepted + (num_accepted < num_drafted ? 1 : 0);
  recent_ += kMemory * (num_accepted / looked_at - recent_);
  if (options_.position || chosen_ || counts_[0].bursts + counts_[1].bursts < kTrialBursts) return;
  chosen_ = acceptance(DraftPosition::kLastKv) > acceptance(DraftPosition::kNewest)
                ? DraftPosition::kLastKv
                : DraftPosition::kNewest;
  decision_news_ = true;
}

bool DraftPolicy::TakeDecision() { return std::exchange(decision_news_, false); }

double DraftPolicy::acceptance(DraftPosition position) const {
  const Count& count = of(position);
  return count.drafted == 0
             ? 0.0
             : static_cast<double>(count.accepted) / static_cast<double>(count.drafted);
}

}  // namespace lapidary
