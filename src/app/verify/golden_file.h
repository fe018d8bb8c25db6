// The expected values that `verify` reads. Keys (P = prompt; i32: ids, rows, greedy, greedy_top,
// tokens; bf16: the keys of that name; f32 the rest):
//   text.P.{ids [L], rows [R], logits [R,V], hidden [R,D], greedy [G], greedy_margin [G]}
//   draft.P.{Lm1,Lm2}.{tokens [K], logits [K,V]}
// Without rows R is L. A run in bf16 needs what the reference made of the same in bf16, and no
// hidden: text.P.{bf16_logits [R,V], greedy_top [G,N]}, draft.P.{Lm1,Lm2}.bf16_logits [K,V].
#ifndef LAPIDARY_APP_VERIFY_GOLDEN_FILE_H_
#define LAPIDARY_APP_VERIFY_GOLDEN_FILE_H_

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "device/tensor.h"
#include "io/safetensors.h"
#include "model/config.h"

namespace lapidary {

// The tensors of a goldens file by name.
using Goldens = std::map<std::string, Tensor>;

// The float and int32 tensors of a goldens file; `file` must outlive them. Throws StartupError for
// a misaligned one.
Goldens ReadGoldens(const Safetensors& file);

// One prompt. Views into the goldens.
struct TextEntry {
  std::string name;  // "text.P"
  std::span<const int32_t> ids, greedy;
  std::vector<int32_t> rows;  // ascending indices into ids, of the rows below
  Tensor logits;
  Tensor hidden, margins;          // of a run in f32
  Tensor bf16_logits, greedy_top;  // of a run in bf16
};
// Errors: a key whose shape or ids cannot belong to this model, named.
Result<TextEntry> ReadTextEntry(const Goldens& goldens, const std::string& name,
                                const ModelConfig& config, DType dtype);

// A burst of drafts after a prompt and its first greedy token.
struct DraftEntry {
  std::string name;  // "draft.P.Lm1"
  std::span<const int32_t> tokens;
  Tensor logits, bf16_logits;
};
bool HasDraftEntry(const Goldens& goldens, const std::string& name);
Result<DraftEntry> ReadDraftEntry(const Goldens& goldens, const std::string& name,
                                  const ModelConfig& drafter, DType dtype);

}  // namespace lapidary

#endif  // LAPIDARY_APP_VERIFY_GOLDEN_FILE_H_
