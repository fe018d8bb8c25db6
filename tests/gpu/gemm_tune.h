// Measures, for every product of the models and every number of rows of the table, the library's
// algorithms and the own kernel, each with what follows the product in the model and,
// of few rows, behind a kernel that writes them.
#ifndef LAPIDARY_TESTS_GPU_GEMM_TUNE_H_
#define LAPIDARY_TESTS_GPU_GEMM_TUNE_H_

#include <string>

#include "device/cuda.h"

namespace lapidary {

// Writes kernels/gemm/gemm_table.inc to `path` and prints a line for each entry that it measures:
// of the shapes whose name has `filter` in it, for up to `most_rows` rows. The shipped table's
// other entries stay. False: the file cannot be written.
bool TuneGemms(CudaDevice& device, const std::string& filter, int most_rows,
               const std::string& path);

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_GPU_GEMM_TUNE_H_
