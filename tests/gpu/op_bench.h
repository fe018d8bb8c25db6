// Times op cases on the GPU beside what the same GPU can read, copy and multiply in the same run.
#ifndef LAPIDARY_TESTS_GPU_OP_BENCH_H_
#define LAPIDARY_TESTS_GPU_OP_BENCH_H_

#include <functional>
#include <string>
#include <vector>

#include "device/cuda.h"
#include "ops/cases/op_case.h"

namespace lapidary {

struct Ceilings {
  double read_gb_per_s = 0, copy_gb_per_s = 0, tflop_per_s = 0;
};

struct BenchLine {
  std::string name;
  double us = 0, gb_per_s = 0, tflop_per_s = 0;
  double percent = 0;  // of the ceiling that bounds the case: bytes / read or flops / matmul,
                       // whichever takes longer
  bool compute_bound = false;
};

// A 4 GiB read and copy, and an 8192^3 product of random bf16 numbers.
Ceilings MeasureCeilings(CudaDevice& device);
// A graph of at least 20 launches over copies of the tensors that together exceed L2 several times;
// the median of 5.
BenchLine MeasureCase(OpCase& op_case, CudaDevice& device, Ops& ops, const Ceilings& ceilings);
// Drawing from `rows` rows of logits on the device: the kernels, without what goes in and comes
// out.
std::vector<BenchLine> MeasureSampling(CudaDevice& device, int rows, const Ceilings& ceilings);
// Seconds of one of `launches` launches in a graph, the median of 5.
double MedianSeconds(CudaDevice& device, int launches, const std::function<void(int)>& launch);
inline constexpr int kBenchLaunches = 20;
inline constexpr int64_t kRotatedBytes = int64_t{256} << 20;
bool WriteRecord(const std::string& path, const std::string& device_name, const Ceilings& ceilings,
                 const std::vector<BenchLine>& lines);

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_GPU_OP_BENCH_H_
