// SoloSession: one sequence run through a model by hand, with an arena of its own. What `verify`
// and the tests use; the engine serves many sequences instead.
#ifndef LAPIDARY_MODEL_SOLO_SESSION_H_
#define LAPIDARY_MODEL_SOLO_SESSION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "model/activations.h"
#include "model/drafter.h"
#include "model/gemma4.h"
#include "model/host_copy.h"
#include "model/loader.h"

namespace lapidary {

class SoloSession {
 public:
  struct Options {
    int max_tokens = 0;  // of the whole sequence
    int max_chunk = 0;   // of one Append
    bool fast_prefill = true;
    DType dtype = DType::kF32;  // activations and KV; a GPU takes bf16 only
    KvFold kv_fold = KvFold::kAuto;
  };

  // All arguments must outlive the session; drafter may be null. Throws as ChooseKvFold.
  SoloSession(const Checkpoint& target, const Checkpoint* drafter, Ops& ops,
              const Options& options);

  // Forgets the sequence; its pages are poisoned.
  void Reset();
  // Appends tokens (1 .. max_chunk) and returns the output of all of them, or of the last one only,
  // in host memory.
  StepOutput Append(std::span<const int32_t> tokens, bool all_rows);
  int length() const { return length_; }

  // One drafting pass for this sequence (Drafter::Step), hidden and output in host memory. The
  // newest token has index length().
  DraftOutput Draft(int32_t token, Tensor hidden, DraftPosition position);

 private:
  // Of the window before the next token.
  std::vector<SlidingPage> WindowPages() const;

  const Checkpoint& target_;
  Device& device_;
  Options options_;
  std::unique_ptr<KvArena> arena_;
  std::unique_ptr<Gemma4> model_;
  std::unique_ptr<Drafter> drafter_;
  std::vector<int32_t> full_pages_, sliding_pages_;  // the tables of slot 0
  std::unique_ptr<BatchBuilder> builder_;
  HostCopy logits_, hidden_, draft_logits_, draft_hidden_;
  Buffer state_;  // of the drafter, [1,target D]
  int length_ = 0;
};

}  // namespace lapidary

#endif  // LAPIDARY_MODEL_SOLO_SESSION_H_
