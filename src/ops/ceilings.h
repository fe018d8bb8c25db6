// Ceilings: what a device can do in this moment at most: the measure of every figure that is given
// as a part of something.
#ifndef LAPIDARY_OPS_CEILINGS_H_
#define LAPIDARY_OPS_CEILINGS_H_

#include <cstdint>
#include <span>

#include "base/bf16.h"
#include "base/worker_pool.h"

namespace lapidary {

struct Ceilings {
  double read_gb_per_s = 0;
  double copy_gb_per_s = 0;  // read and written; 0: not measured
  double tflop_per_s = 0;    // a CPU's fma in f32, a GPU's product of bf16 matrices
};

// Samples of what this machine reads and multiplies right now.
class CeilingProbe {
 public:
  // Of the pool's threads. Reads go round `memory`, written before and larger than the caches; both
  // outlive this. Tries which number of streams this machine reads fastest by.
  CeilingProbe(WorkerPool& pool, std::span<const Bf16> memory);

  // One sample each. An instruction set of LinearVariants; 0 where it has none of its own.
  double ReadGbPerS();
  double FmaGflopPerS(const char* instruction_set);

 private:
  using ReadFunction = void (*)(const Bf16* begin, int64_t count);
  static const ReadFunction kReaders[4];

  WorkerPool& pool_;
  const std::span<const Bf16> memory_;
  size_t next_ = 0;
  ReadFunction read_;
};

// Of this machine: medians of a few samples, in a quarter of a GiB of its own. Zeros where it has
// no vector instructions that are known here.
Ceilings MeasureHostCeilings(int num_threads);  // 0: all cores

}  // namespace lapidary

#endif  // LAPIDARY_OPS_CEILINGS_H_
