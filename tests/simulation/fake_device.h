// FakeDevice: carries out step plans like a rank, with marks instead of K and V. A mark is the hash
// of all tokens up to a position under the sequence's salt; a row that finds another mark where its
// history should be has read somebody else's page, a lost one, or one too early.
#ifndef LAPIDARY_TESTS_SIMULATION_FAKE_DEVICE_H_
#define LAPIDARY_TESTS_SIMULATION_FAKE_DEVICE_H_

#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "engine/scheduler.h"

namespace lapidary {

class FakeDevice {
 public:
  FakeDevice(const KvLayout& layout, int32_t num_slabs, const SchedulerLimits& limits);

  // Draws tokens and decides what is accepted by `rng`.
  StepNews Run(const StepPlan& plan, std::mt19937_64& rng);
  // All tokens of what is in the slot, drawn ones included.
  const std::vector<int32_t>& tokens(int32_t slot) const {
    return slots_.at(static_cast<size_t>(slot)).tokens;
  }

 private:
  struct Slot {
    std::vector<int32_t> tokens;
    std::vector<uint32_t> marks;  // of each position
    int max_length = 0;
    int num_drafts = 0;
    uint32_t salt = 0;
  };
  struct Row {
    int32_t slot, position;
    uint32_t mark;
    int32_t scratch_page, first_cell;  // scratch_page 0: reads pages
  };
  void Start(const SlotStart& start);
  void Push(Slot& slot, int32_t token);
  RowsNews Draw(const PlannedRows& planned, std::mt19937_64& rng) const;
  void AddRows(const PlannedRows& planned, const RowsNews& drawn, std::vector<Row>& rows,
               int32_t& scratch_pages);
  void Store(const Row& row);
  void CheckReads(const Row& row, std::mt19937_64& rng) const;
  uint32_t* Cell(PageKind kind, int32_t slot, int32_t position);
  const uint32_t* Cell(PageKind kind, int32_t slot, int32_t position) const;

  const KvLayout layout_;
  const SchedulerLimits limits_;
  const int32_t cells_;
  std::vector<Slot> slots_;
  std::vector<int32_t> tables_[2];
  std::vector<uint32_t> pages_[2], scratch_;
};

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_SIMULATION_FAKE_DEVICE_H_
