// Comparing two backends on one case.
#ifndef LAPIDARY_OPS_CASES_COMPARE_H_
#define LAPIDARY_OPS_CASES_COMPARE_H_

#include <string>
#include <vector>

#include "ops/cases/op_case.h"

namespace lapidary {

struct Difference {
  double max_units = 0, rms_units = 0;  // infinite where one is not finite and the other is
  int64_t row = 0, column = 0;          // of the largest
  double expected = 0, actual = 0;      // there
  int64_t num_compared = 0;
};

// Both tensors are on the host, [T,N], f32, bf16 or i32 (exact: any other id is an infinite error).
// Where both hold NaN they agree.
Difference Compare(const Tensor& expected, const Tensor& actual);

// Runs the case on the CPU's ops and on `ops` over `device`, compares all outputs, or of a case
// with much arithmetic those of SampledRows. Empty: it passed; otherwise what differed.
std::string CheckCase(OpCase& op_case, Ops& cpu_ops, Ops& ops, Device& device);

// At least 64 of `num_rows` rows, ascending, or all if there are no more: the first and the last
// ones, the borders of tiles, blocks and pages, and some from a lot.
std::vector<int64_t> SampledRows(int64_t num_rows, uint64_t seed);

}  // namespace lapidary

#endif  // LAPIDARY_OPS_CASES_COMPARE_H_
