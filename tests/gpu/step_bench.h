// The time of a model's decode step on the GPU, as a graph.
#ifndef LAPIDARY_TESTS_GPU_STEP_BENCH_H_
#define LAPIDARY_TESTS_GPU_STEP_BENCH_H_

#include <filesystem>
#include <memory>

#include "ops/ops.h"

namespace lapidary {

// Milliseconds of a step of `rows` sequences, one row each, that see `context` keys; dummy weights
// of the configuration in `dir`.
double MeasureStep(const std::filesystem::path& dir, const std::shared_ptr<Ops>& ops, int rows,
                   int context);

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_GPU_STEP_BENCH_H_
