// The launches that LaunchRowSampling is made of, in their order.
#ifndef LAPIDARY_KERNELS_SAMPLING_ROW_KERNELS_H_
#define LAPIDARY_KERNELS_SAMPLING_ROW_KERNELS_H_

#include "kernels/sampling/row_sampling.h"

namespace lapidary::kernels {

// RowResult::token of a row that RowSearch has to do.
inline constexpr int kUndecided = -2;

void LaunchRowChunks(const RowSamplingParams& params, Stream stream);
void LaunchRowDraw(const RowSamplingParams& params, Stream stream);
void LaunchRowSearch(const RowSamplingParams& params, Stream stream);
void LaunchRowScore(const RowSamplingParams& params, Stream stream);

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_SAMPLING_ROW_KERNELS_H_
