#include "kernels/gemm/gemm_table.h"

#include <algorithm>

namespace lapidary::kernels {
namespace {

#include "kernels/gemm/gemm_table.inc"

// FindGemmChoice looks for rows of kGemmRows alone.
constexpr bool IsSorted() {
  for (size_t i = 1; i < kChoices.size(); ++i)
    if (!IsBefore(kChoices[i - 1], kChoices[i])) return false;
  return true;
}
static_assert(IsSorted());
static_assert(std::ranges::all_of(kChoices, [](const GemmChoice& choice) {
  return std::ranges::binary_search(kGemmRows, choice.rows);
}));

}  // namespace

const GemmTable& ShippedGemmTable() {
  static const GemmTable table{kLibraryVersion, kNumSms, kChoices};
  return table;
}

const GemmChoice* FindGemmChoice(const GemmTable& table, int n, int k, int rows) {
  const auto bucket = std::lower_bound(kGemmRows.begin(), kGemmRows.end(), rows);
  if (bucket == kGemmRows.end()) return nullptr;
  GemmChoice wanted;
  wanted.n = n, wanted.k = k, wanted.rows = *bucket;
  const auto found = std::ranges::lower_bound(table.choices, wanted, IsBefore);
  return found != table.choices.end() && !IsBefore(wanted, *found) ? &*found : nullptr;
}

}  // namespace lapidary::kernels
