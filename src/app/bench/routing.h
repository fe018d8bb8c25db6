// Routing: whether a run of a model with experts read as many of them as independent rows would,
// and so may stand for a real one. Random weights whose rows are alike read fewer.
#ifndef LAPIDARY_APP_BENCH_ROUTING_H_
#define LAPIDARY_APP_BENCH_ROUTING_H_

#include <optional>
#include <vector>

#include "app/bench/metrics.h"
#include "io/json.h"
#include "model/config.h"
#include "ops/expert_tally.h"

namespace lapidary {

// Of one layer in one step, the mean of those with up to ExpertTally::kMaxRows rows.
struct Routing {
  double experts = 0;              // distinct ones that the rows chose
  double independent_experts = 0;  // that as many rows would choose, each any of them
};
// Unset where nothing was counted.
std::optional<Routing> RoutingOf(const ExpertTally& tally, const MoeConfig& moe);
void AddFigures(const Routing& routing, std::vector<Figure>& figures);

// Of a run's figures, if they have a routing: prints a line, and tells the record whether all runs
// are valid: at least 97 % of the experts and 7 of 8 sampled tokens distinct.
void JudgeRouting(const std::vector<Spread>& spreads, json::object& record);

}  // namespace lapidary

#endif  // LAPIDARY_APP_BENCH_ROUTING_H_
