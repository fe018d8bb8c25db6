#include "app/bench/routing.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <string_view>

namespace lapidary {
namespace {

constexpr double kLeastExpertsPercent = 97, kLeastDistinctShare = 7.0 / 8;
constexpr const char *kExperts = "distinct_experts_a_layer",
                     *kIndependent = "independent_experts_a_layer",
                     *kPercent = "percent_of_independent_experts";

const Spread* Find(const std::vector<Spread>& spreads, std::string_view key) {
  const auto found =
      std::ranges::find_if(spreads, [&](const Spread& spread) { return spread.key == key; });
  return found == spreads.end() ? nullptr : &*found;
}

}  // namespace

std::optional<Routing> RoutingOf(const ExpertTally& tally, const MoeConfig& moe) {
  double calls = 0;
  Routing routing;
  for (size_t rows = 1; rows < tally.of_rows.size(); ++rows) {
    const auto count = static_cast<double>(tally.of_rows[rows].num_calls);
    const double missed =
        std::pow(1 - 1.0 * moe.top_k / moe.num_experts, static_cast<double>(rows));
    calls += count;
    routing.experts += static_cast<double>(tally.of_rows[rows].num_experts);
    routing.independent_experts += count * moe.num_experts * (1 - missed);
  }
  if (calls == 0) return std::nullopt;
  routing.experts /= calls;
  routing.independent_experts /= calls;
  return routing;
}

void AddFigures(const Routing& routing, std::vector<Figure>& figures) {
  figures.push_back({kExperts, "experts a layer", routing.experts});
  figures.push_back({kIndependent, "of independent rows", routing.independent_experts});
  figures.push_back(
      {kPercent, "% of those chosen", 100 * routing.experts / routing.independent_experts});
}

void JudgeRouting(const std::vector<Spread>& spreads, json::object& record) {
  const Spread *percent = Find(spreads, kPercent), *sampled = Find(spreads, "sampled_tokens"),
               *distinct = Find(spreads, "distinct_sampled_tokens");
  if (percent == nullptr || sampled == nullptr || distinct == nullptr) return;
  const bool valid =
      percent->min >= kLeastExpertsPercent && distinct->min >= kLeastDistinctShare * sampled->max;
  fmt::print(
      "routing   {}: at least {:.1f} % of the experts that independent rows would choose "
      "(limit {}), {:.0f} of {:.0f} tokens distinct (limit {:.0f})\n",
      valid ? "VALID" : "NOT VALID", percent->min, kLeastExpertsPercent, distinct->min,
      sampled->max, std::ceil(kLeastDistinctShare * sampled->max));
  record["valid"] = valid;
}

}  // namespace lapidary
