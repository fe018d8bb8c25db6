// GoldenCheck: compares a loaded checkpoint with expected values of the reference implementation,
// entry by entry. Keys (P = prompt): text.P.{ids [L] i32, logits [L,V], hidden [L,D], greedy [G]
// i32, greedy_margin [G]} and draft.P.{Lm1,Lm2}.{tokens [K] i32, logits [K,V]}, all f32 unless
// said.
#ifndef LAPIDARY_APP_GOLDEN_CHECK_H_
#define LAPIDARY_APP_GOLDEN_CHECK_H_

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "model/loader.h"
#include "model/solo_session.h"

namespace lapidary {

// The tensors of a goldens file by name.
using Goldens = std::map<std::string, Tensor>;

struct CheckCounts {
  int passed = 0, failed = 0, skipped = 0;
};

class GoldenCheck {
 public:
  // chunk 0: prompts at once. drafter may be null: draft entries are then skipped. print gets one
  // line a check.
  GoldenCheck(const Checkpoint& target, const Checkpoint* drafter, Ops& ops, int chunk,
              double max_abs, std::function<void(const std::string&)> print);

  // Errors: an entry whose shape or ids cannot belong to this model, named by its key.
  Result<CheckCounts> Run(const Goldens& goldens);

 private:
  struct TextEntry {
    std::string name;
    std::span<const int32_t> ids, greedy;
    Tensor logits, hidden, margins;
  };
  struct Difference {
    double largest = 0;
    int64_t row = 0, column = 0;
    bool finite = true;
    void Update(int64_t r, const float* ours, const float* golden, int64_t count);
  };

  Result<TextEntry> ReadText(const Goldens& goldens, const std::string& name) const;
  void CheckText(const TextEntry& entry, std::vector<float>& last_hidden);
  void CheckGreedy(const TextEntry& entry, double logit_difference);
  Status CheckDraft(const Goldens& goldens, const TextEntry& entry, const std::string& tag,
                    const std::vector<float>& last_hidden);
  bool Report(const std::string& name, const Difference& difference);
  void Count(bool passed, const std::string& line);

  const Checkpoint& target_;
  const Checkpoint* drafter_;
  Ops& ops_;
  int chunk_;
  double max_abs_;
  std::function<void(const std::string&)> print_;
  std::unique_ptr<SoloSession> session_;
  CheckCounts counts_;
};

}  // namespace lapidary

#endif  // LAPIDARY_APP_GOLDEN_CHECK_H_
