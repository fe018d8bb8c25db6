// DecodeGraphs: steps of decode and verify rows alone, captured at start-up and replayed. A batch
// is padded to the next size that was captured: rows without a token, a slot and keys, whose
// results nobody reads and which store nothing.
#ifndef LAPIDARY_ENGINE_DECODE_GRAPHS_H_
#define LAPIDARY_ENGINE_DECODE_GRAPHS_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "model/gemma4.h"
#include "ops/batch.h"

namespace lapidary {

class DecodeGraphs {
 public:
  // All must outlive it. Of steps with up to max_sequences sequences of up to 1 + max_drafts rows,
  // and no more than max_rows.
  DecodeGraphs(Gemma4& model, Ops& ops, int max_sequences, int max_drafts, int max_rows);

  // Captures all sizes. full_pages and sliding_pages: the tables [S,P] of the steps to come. Before
  // each capture the step runs as it is; the ends of each kind must have the same bits. Returns how
  // many there are.
  int Capture(const Tensor& full_pages, const Tensor& sliding_pages);
  // Milliseconds of the device for the smallest step and the largest, with next to no keys.
  std::pair<double, double> step_ms() const { return {sizes_.front().ms, sizes_.back().ms}; }
  // The output rows of the step, or nothing is done and false: a step with chunks.
  bool Run(const Batch& batch, StepOutput& output);

 private:
  struct Size {
    int sequence_rows = 0;  // of the largest sequence
    int num_rows = 0;
    std::unique_ptr<Graph> graph;
    StepOutput output;
    const void* tokens = nullptr;  // where the graph reads them
    double ms = 0;                 // of the ends of each kind
  };
  // A batch of num_rows rows: those of `batch`, then padding.
  Batch Padded(const Batch& batch, const Size& size);
  void CaptureSize(Size& size, const Batch& batch, bool checks);

  Gemma4& model_;
  Ops& ops_;
  std::vector<Size> sizes_;  // ascending
  std::vector<int32_t> tokens_, positions_, key_ends_, slots_, chunks_, rows_;
};

}  // namespace lapidary

#endif  // LAPIDARY_ENGINE_DECODE_GRAPHS_H_
