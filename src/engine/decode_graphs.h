// DecodeGraphs: steps of decode and verify rows alone, and passes of the drafter, captured at
// start-up and replayed. A batch is padded to the next size that was captured: rows without a
// token, a slot and keys, whose results nobody reads and which store nothing.
#ifndef LAPIDARY_ENGINE_DECODE_GRAPHS_H_
#define LAPIDARY_ENGINE_DECODE_GRAPHS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "model/drafter.h"
#include "model/gemma4.h"
#include "ops/batch.h"
#include "ops/slot_states.h"

namespace lapidary {

class DecodeGraphs {
 public:
  // All must outlive it; drafter may be null. Of steps with up to max_sequences sequences of up to
  // 1 + max_drafts rows, and no more than max_rows.
  DecodeGraphs(Gemma4& model, Drafter* drafter, Ops& ops, SlotStates& slots, int max_sequences,
               int max_drafts, int max_rows);

  // Captures all sizes. full_pages and sliding_pages: the tables [S,P] of the steps to come. Before
  // each capture the step runs as it is; the ends of each kind must have the same bits. Returns how
  // many there are.
  int Capture(const Tensor& full_pages, const Tensor& sliding_pages);
  // Milliseconds of the device for the smallest step and the largest, with next to no keys.
  std::pair<double, double> step_ms() const { return {steps_.front().ms, steps_.back().ms}; }
  // Brings a batch to the device, padded to a size if there is a graph for it.
  Batch Place(const Batch& batch);
  // The output rows of the batch placed last, or nothing is done and false: a step with chunks.
  bool Run(StepOutput& output);
  // A pass over the first rows of the newest SlotStates::PlaceDrafts, or nothing and false.
  bool RunDraft(int64_t num_rows, DraftOutput& output);

 private:
  struct Size {
    int sequence_rows = 0;  // of the largest sequence
    int num_rows = 0;
    std::unique_ptr<Graph> graph;
    StepOutput output;
    const void* tokens = nullptr;  // where the graph reads them
    double ms = 0;                 // of the ends of each kind
  };
  struct DraftSize {
    int num_rows = 0;
    std::unique_ptr<Graph> graph;
    DraftOutput output;
  };
  // A batch of num_rows rows: those of `batch`, then padding.
  Batch Padded(const Batch& batch, const Size& size);
  void CaptureStep(Size& size, const Batch& batch, bool checks);
  void CaptureDraft(DraftSize& size, bool checks);
  // The graph of `work`, which queues the same each time. Runs `work` first and, if checked, the
  // graph after it, each behind `prepare`: both must leave the same bits in row 0 of the result.
  std::unique_ptr<Graph> CaptureWork(const std::function<Tensor()>& work,
                                     const std::function<void()>& prepare, bool checks);

  Gemma4& model_;
  Drafter* drafter_;
  Ops& ops_;
  SlotStates& slots_;
  std::vector<Size> steps_;            // ascending
  std::vector<DraftSize> drafts_;      // likewise
  const Size* placed_ = nullptr;       // of the newest batch
  int64_t num_placed_ = 0;             // its rows without padding
  Tensor full_pages_, sliding_pages_;  // on the device
  std::vector<int32_t> tokens_, positions_, key_ends_, row_slots_, chunks_, rows_, offsets_;
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_DECODE_GRAPHS_H_
