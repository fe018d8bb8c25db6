// Times op cases on the GPU beside what the same GPU can read, copy and multiply in the same run.
#ifndef LAPIDARY_TESTS_GPU_OP_BENCH_H_
#define LAPIDARY_TESTS_GPU_OP_BENCH_H_

#include <string>
#include <vector>

#include "device/cuda.h"
#include "ops/cases/op_case.h"
#include "ops/cuda/ceilings.h"

namespace lapidary {

struct BenchLine {
  std::string name;
  double us = 0, gb_per_s = 0, tflop_per_s = 0;
  double percent = 0;  // of the ceiling that bounds the case: bytes / read or flops / matmul,
                       // whichever takes longer
  bool compute_bound = false;
};

// A graph of at least 20 launches over copies of the tensors that together exceed L2 several times;
// the median of 5.
BenchLine MeasureCase(OpCase& op_case, CudaDevice& device, Ops& ops, const Ceilings& ceilings);
// Drawing from `rows` rows of logits on the device: the kernels, without what goes in and comes
// out.
std::vector<BenchLine> MeasureSampling(CudaDevice& device, int rows, const Ceilings& ceilings);
inline constexpr int kBenchLaunches = 20;
inline constexpr int64_t kRotatedBytes = int64_t{256} << 20;
bool WriteRecord(const std::string& path, const std::string& device_name, const Ceilings& ceilings,
                 const std::vector<BenchLine>& lines);

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_GPU_OP_BENCH_H_
