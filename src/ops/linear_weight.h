// LinearWeight: a [N,K] matrix made of up to three row blocks that lie apart in memory (Q, K, V;
// gate, up), so that a mapped checkpoint is used where it lies.
#ifndef LAPIDARY_OPS_LINEAR_WEIGHT_H_
#define LAPIDARY_OPS_LINEAR_WEIGHT_H_

#include <array>
#include <initializer_list>

#include "device/tensor.h"

namespace lapidary {

struct LinearWeight {
  std::array<Tensor, 3> blocks;  // [Ni,K] bf16 each
  int num_blocks = 0;

  LinearWeight() = default;
  LinearWeight(std::initializer_list<Tensor> parts) {  // NOLINT(google-explicit-constructor)
    for (const Tensor& part : parts) {
      CHECK(num_blocks < 3 && part.rank == 2 && part.cols() == parts.begin()->cols(), "block {}",
            num_blocks);
      blocks[static_cast<size_t>(num_blocks++)] = part;
    }
  }
  bool empty() const { return num_blocks == 0; }
  int64_t rows() const {
    int64_t sum = 0;
    for (int i = 0; i < num_blocks; ++i) sum += blocks[static_cast<size_t>(i)].rows();
    return sum;
  }
  int64_t cols() const { return num_blocks == 0 ? 0 : blocks[0].cols(); }
};

}  // namespace lapidary

#endif  // LAPIDARY_OPS_LINEAR_WEIGHT_H_
