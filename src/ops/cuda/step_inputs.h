// StepInputs: brings a step's batch to the GPU: what its rows are in one pinned block by one copy,
// and of the page tables, which stay there, only the cells that changed.
#ifndef LAPIDARY_OPS_CUDA_STEP_INPUTS_H_
#define LAPIDARY_OPS_CUDA_STEP_INPUTS_H_

#include <array>
#include <cstdint>
#include <vector>

#include "device/cuda.h"
#include "ops/batch.h"

namespace lapidary::cuda {

class StepInputs {
 public:
  explicit StepInputs(CudaDevice& device) : device_(device) {}

  // Tensors of the same sizes get the same places. Of the tables those cells are brought that the
  // rows may read or store to.
  Batch Place(const Batch& batch);

 private:
  // A block that the host fills while the device reads another.
  struct Block {
    HostMemory memory;
    uint64_t mark = 0;  // of the copy
  };

  void HaveTables(const RowSet& rows);
  void FindChanges(const RowSet& rows);
  void CompareCells(int table, const Tensor& host, int64_t slot, int64_t num_cells);
  void Reserve(int64_t num_words);
  Tensor Put(const Tensor& host);
  void PlaceRows(RowSet& rows);
  void SendChanges();

  CudaDevice& device_;
  std::array<Block, 4> blocks_;
  size_t block_ = 0;
  DeviceMemory place_;                  // of a block's words on the device
  std::vector<DeviceMemory> outgrown_;  // captured graphs read from these
  int64_t num_words_ = 0;               // in the block so far

  int64_t num_slots_ = 0, num_cells_ = 0;  // of both tables: full, then sliding
  DeviceMemory tables_;
  std::vector<int32_t> known_;             // what is there
  std::vector<int32_t> changed_, values_;  // indices into both tables, and the pages
};

}  // namespace lapidary::cuda

#endif  // LAPIDARY_OPS_CUDA_STEP_INPUTS_H_
