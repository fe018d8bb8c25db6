// FakeDevice: carries out step plans like a rank, with marks instead of K and V. A mark is the hash
// of all tokens up to a position under the sequence's salt; a row that finds another mark where its
// history should be has read somebody else's page, a lost one, or one too early.
#ifndef LAPIDARY_TESTS_SIMULATION_FAKE_DEVICE_H_
#define LAPIDARY_TESTS_SIMULATION_FAKE_DEVICE_H_

#include <cstdint>
#include <random>
#include <vector>

#include "engine/scheduler/scheduler.h"

namespace lapidary {

class FakeDevice {
 public:
  // pool: who may read what is checked against it; it outlives this. greedy: a token follows from
  // what was before it.
  FakeDevice(const KvLayout& layout, const SlabPool& pool, const SchedulerLimits& limits,
             bool greedy);

  // Draws tokens and decides what is accepted by `rng`.
  StepNews Run(const StepPlan& plan, std::mt19937_64& rng);
  // The pages that only this slot reads hold nothing of use any more: its sequence failed.
  void Spoil(int32_t slot);

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
  void Apply(const StepPlan& plan);
  void Start(const SlotStart& start);
  // Every page in a table has as many users as the pool counts, no other page has any, and the
  // tables of free slots are empty.
  void CheckTables() const;
  void Push(Slot& slot, int32_t token);
  RowsNews Draw(const PlannedRows& planned, std::mt19937_64& rng) const;
  void AddRows(const PlannedRows& planned, const RowsNews& drawn, std::vector<Row>& rows,
               int32_t& scratch_pages);
  void CheckWindow(int32_t slot, int32_t position) const;
  int32_t PageAt(PageKind kind, const Row& row) const;
  template <typename Page>
  void CheckIsOwn(Page page) const;
  void Store(const Row& row);
  void CheckReads(const Row& row, std::mt19937_64& rng) const;
  uint32_t* Cell(PageKind kind, int32_t slot, int32_t position);
  const uint32_t* Cell(PageKind kind, int32_t slot, int32_t position) const;

  const KvLayout layout_;
  const SlabPool& pool_;
  const bool is_greedy_;
  const int max_drafts_;
  const int32_t cells_;
  std::vector<Slot> slots_;
  std::vector<int32_t> tables_[2];
  std::vector<uint32_t> pages_[2], scratch_;
  mutable std::vector<int32_t> num_users_;  // of CheckTables
};

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_SIMULATION_FAKE_DEVICE_H_
