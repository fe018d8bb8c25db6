// CudaSlotStates: SlotStates over kernels/sampling/slot_states.
#ifndef LAPIDARY_OPS_CUDA_SLOT_STATES_H_
#define LAPIDARY_OPS_CUDA_SLOT_STATES_H_

#include <array>
#include <vector>

#include "device/cuda.h"
#include "kernels/sampling/slot_states.h"
#include "ops/slot_states.h"

namespace lapidary::cuda {

class CudaSlotStates : public SlotStates {
 public:
  CudaSlotStates(CudaDevice& device, int num_slots, int64_t hidden_size);

  void Begin(const SlotStep& step) override;
  void PlaceRows(Tensor tokens, const RowSet& rows, Tensor offsets) override;
  void Accept(Tensor draws, Tensor hidden) override;
  void SimulateAcceptLength(double length) override { simulated_ = length; }
  DraftRows PlaceDrafts(int back) override;
  void TakeDrafts(int pass, Tensor best) override;
  std::span<const SlotOutcome> Read() override;
  std::array<int32_t, kMaxDrafts> Drafts(int32_t slot) override;

  const kernels::SlotState* states() const { return Of<kernels::SlotState>(states_); }

 private:
  // Pinned: what the host writes while the device reads the step before it, and what it reads while
  // the device writes the one behind it.
  struct Block {
    HostMemory memory;
    uint64_t mark = 0;  // of the copy
    int num_rows = 0;
  };
  template <typename T>
  static T* Of(const DeviceMemory& memory) {
    return static_cast<T*>(memory.data());
  }

  CudaDevice& device_;
  const int num_slots_;
  const int64_t hidden_size_;
  DeviceMemory states_, hidden_;           // [S], [S,D]
  DeviceMemory plan_;                      // [S] of begins, entries, slots that draft
  DeviceMemory outcomes_;                  // [S]
  DeviceMemory draft_ids_, draft_hidden_;  // 5 x [S] i32, [S,D]
  double simulated_ = 0;
  std::array<Block, 2> plans_, results_;
  uint64_t num_begun_ = 0, num_accepted_ = 0, num_read_ = 0;
  int num_rows_ = 0, num_drafting_ = 0;            // of the newest step
  const kernels::AcceptEntry* entries_ = nullptr;  // in plan_, of the newest step
  const int32_t* drafting_ = nullptr;
  std::vector<SlotOutcome> read_;
};

}  // namespace lapidary::cuda

#endif  // LAPIDARY_OPS_CUDA_SLOT_STATES_H_
