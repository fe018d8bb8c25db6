#include "app/golden_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace lapidary {
namespace {

constexpr int64_t kMaxPrompt = 1 << 20;

std::span<const int32_t> Ids(const Tensor& tensor) {
  return {static_cast<const int32_t*>(tensor.data), static_cast<size_t>(tensor.num_elements())};
}

const Tensor* Find(const Goldens& goldens, const std::string& key) {
  const auto found = goldens.find(key);
  return found == goldens.end() ? nullptr : &found->second;
}

bool HasShape(const Tensor* tensor, DType dtype, int64_t rows, int64_t cols) {
  return tensor != nullptr && tensor->dtype == dtype && tensor->rank == (cols == 0 ? 1 : 2) &&
         tensor->rows() == rows && (cols == 0 || tensor->cols() == cols);
}

int32_t ArgMax(const float* row, int64_t count) {
  return static_cast<int32_t>(std::max_element(row, row + count) - row);
}

double TopTwoGap(const float* row, int64_t count) {
  float best = -INFINITY, second = -INFINITY;
  for (int64_t i = 0; i < count; ++i) {
    if (row[i] > best) {
      second = best;
      best = row[i];
    } else {
      second = std::max(second, row[i]);
    }
  }
  return double{best} - double{second};
}

}  // namespace

GoldenCheck::GoldenCheck(const Checkpoint& target, const Checkpoint* drafter, Ops& ops, int chunk,
                         double max_abs, std::function<void(const std::string&)> print)
    : target_(target),
      drafter_(drafter),
      ops_(ops),
      chunk_(chunk),
      max_abs_(max_abs),
      print_(std::move(print)) {}

void GoldenCheck::Difference::Update(int64_t r, const float* ours, const float* golden,
                                     int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const double d = std::fabs(double{ours[i]} - double{golden[i]});
    if (!std::isfinite(d)) {
      if (finite) row = r, column = i;
      finite = false;
    } else if (finite && d > largest) {
      largest = d;
      row = r;
      column = i;
    }
  }
}

void GoldenCheck::Count(bool passed, const std::string& line) {
  ++(passed ? counts_.passed : counts_.failed);
  print_((passed ? "ok    " : "FAIL  ") + line);
}

bool GoldenCheck::Report(const std::string& name, const Difference& d) {
  const bool passed = d.finite && d.largest <= max_abs_;
  Count(passed, d.finite ? fmt::format("{:<22} max |d| {:.3e} at [{}, {}], limit {:g}", name,
                                       d.largest, d.row, d.column, max_abs_)
                         : fmt::format("{:<22} not finite at [{}, {}]", name, d.row, d.column));
  return passed;
}

Result<GoldenCheck::TextEntry> GoldenCheck::ReadText(const Goldens& goldens,
                                                     const std::string& name) const {
  const ModelConfig& config = target_.config;
  const Tensor* ids = Find(goldens, name + ".ids");
  const auto bad = [&](const char* key, const std::string& rule) {
    return Error{fmt::format("goldens: {}.{} {}", name, key, rule), name + "." + key, ""};
  };
  if (ids == nullptr || ids->dtype != DType::kI32 || ids->rank != 1 || ids->rows() < 1 ||
      ids->rows() > kMaxPrompt)
    return bad("ids", "must be I32 [L] with 1 <= L <= 1048576");
  for (const int32_t id : Ids(*ids))
    if (id < 0 || id >= config.vocab_size)
      return bad("ids", fmt::format("holds {}, the vocabulary has {}", id, config.vocab_size));
  TextEntry entry;
  entry.name = name;
  entry.ids = Ids(*ids);
  const Tensor* logits = Find(goldens, name + ".logits");
  const Tensor* hidden = Find(goldens, name + ".hidden");
  const Tensor* greedy = Find(goldens, name + ".greedy");
  const Tensor* margins = Find(goldens, name + ".greedy_margin");
  if (!HasShape(logits, DType::kF32, ids->rows(), config.vocab_size))
    return bad("logits", fmt::format("must be F32 [{}, {}]", ids->rows(), config.vocab_size));
  if (!HasShape(hidden, DType::kF32, ids->rows(), config.hidden))
    return bad("hidden", fmt::format("must be F32 [{}, {}]", ids->rows(), config.hidden));
  if (greedy == nullptr || greedy->dtype != DType::kI32 || greedy->rank != 1 ||
      greedy->rows() > kMaxPrompt)
    return bad("greedy", "must be I32 [G]");
  if (!HasShape(margins, DType::kF32, greedy->rows(), 0))
    return bad("greedy_margin", fmt::format("must be F32 [{}]", greedy->rows()));
  for (const int32_t id : Ids(*greedy))
    if (id < 0 || id >= config.vocab_size)
      return bad("greedy", fmt::format("holds {}, the vocabulary has {}", id, config.vocab_size));
  entry.logits = *logits;
  entry.hidden = *hidden;
  entry.greedy = Ids(*greedy);
  entry.margins = *margins;
  return entry;
}

Result<CheckCounts> GoldenCheck::Run(const Goldens& goldens) {
  std::set<std::string> texts, media;
  for (const auto& [key, tensor] : goldens) {
    const std::string name = key.substr(0, key.find('.', key.find('.') + 1));
    if (key.starts_with("text.")) texts.insert(name);
    if (key.starts_with("image.") || key.starts_with("audio.")) media.insert(name);
  }
  if (texts.empty()) return Error{"goldens: no text.P.ids entry; is this a goldens file?", "", ""};
  std::vector<TextEntry> entries;
  int64_t longest = 0, longest_prompt = 0;
  for (const std::string& name : texts) {
    auto entry = ReadText(goldens, name);
    if (!entry.ok()) return entry.error();
    entries.push_back(entry.value());
    longest = std::max<int64_t>(
        longest, static_cast<int64_t>(entries.back().ids.size() + entries.back().greedy.size()));
    longest_prompt =
        std::max<int64_t>(longest_prompt, static_cast<int64_t>(entries.back().ids.size()));
  }
  if (longest > target_.config.max_position)
    return Error{
        fmt::format(
            "goldens: a prompt and its continuation have {} tokens, the model's context is {}",
            longest, target_.config.max_position),
        "", ""};
  if (chunk_ <= 0) chunk_ = static_cast<int>(std::min<int64_t>(longest_prompt, 1024));
  session_ = std::make_unique<SoloSession>(
      target_, drafter_, ops_,
      SoloSession::Options{static_cast<int>(longest), chunk_, true, ops_.dtype()});
  for (const TextEntry& entry : entries) {
    std::vector<float> last_hidden;
    CheckText(entry, last_hidden);
    const std::string draft = "draft" + entry.name.substr(4);
    for (const std::string tag : {"Lm1", "Lm2"}) {
      if (Find(goldens, draft + "." + tag + ".tokens") == nullptr) continue;
      if (drafter_ == nullptr || entry.greedy.empty()) {
        ++counts_.skipped;
        continue;
      }
      const Status status = CheckDraft(goldens, entry, tag, last_hidden);
      if (!status.ok()) return status.error();
    }
  }
  counts_.skipped += static_cast<int>(media.size());
  return counts_;
}

void GoldenCheck::CheckText(const TextEntry& entry, std::vector<float>& last_hidden) {
  Difference logits, hidden;
  session_->Reset();
  const auto length = static_cast<int64_t>(entry.ids.size());
  for (int64_t begin = 0; begin < length; begin += chunk_) {
    const int64_t count = std::min<int64_t>(chunk_, length - begin);
    const StepOutput out = session_->Append(
        entry.ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)), true);
    for (int64_t i = 0; i < count; ++i) {
      logits.Update(begin + i, out.logits.Rows(i, 1).f32(), entry.logits.Rows(begin + i, 1).f32(),
                    out.logits.cols());
      hidden.Update(begin + i, out.hidden.Rows(i, 1).f32(), entry.hidden.Rows(begin + i, 1).f32(),
                    out.hidden.cols());
    }
    const float* last = out.hidden.Rows(count - 1, 1).f32();
    last_hidden.assign(last, last + out.hidden.cols());
  }
  Report(entry.name + ".logits", logits);
  Report(entry.name + ".hidden", hidden);
  CheckGreedy(entry, logits.finite ? logits.largest : INFINITY);
}

// Teacher-forced: each step sees the golden tokens before it, so that one tie does not hide the
// steps behind it.
void GoldenCheck::CheckGreedy(const TextEntry& entry, double logit_difference) {
  session_->Reset();
  const auto length = static_cast<int64_t>(entry.ids.size());
  // The prompt again, this time as served: only its last row is asked for, so rows may stop early.
  StepOutput out;
  for (int64_t begin = 0; begin < length; begin += chunk_) {
    const auto count = static_cast<size_t>(std::min<int64_t>(chunk_, length - begin));
    out = session_->Append(entry.ids.subspan(static_cast<size_t>(begin), count), false);
  }
  int ties = 0, wrong = 0;
  std::string first;
  for (size_t step = 0; step < entry.greedy.size(); ++step) {
    if (step > 0) out = session_->Append(entry.greedy.subspan(step - 1, 1), false);
    const int32_t ours = ArgMax(out.logits.f32(), out.logits.cols());
    if (ours == entry.greedy[step]) continue;
    const double margin = entry.margins.f32()[step];
    const bool tie = logit_difference <= max_abs_ && margin <= 2 * logit_difference;
    ++(tie ? ties : wrong);
    if (first.empty())
      first = fmt::format(", first at step {}: {} for {}, margin {:.3e}", step, ours,
                          entry.greedy[step], margin);
  }
  Count(wrong == 0, fmt::format("{:<22} {} tokens, {} ties, {} wrong{}", entry.name + ".greedy",
                                entry.greedy.size(), ties, wrong, first));
}

Status GoldenCheck::CheckDraft(const Goldens& goldens, const TextEntry& entry,
                               const std::string& tag, const std::vector<float>& last_hidden) {
  const ModelConfig& config = target_.config;
  const std::string name = "draft" + entry.name.substr(4) + "." + tag;
  const Tensor* tokens = Find(goldens, name + ".tokens");
  const Tensor* golden = Find(goldens, name + ".logits");
  if (tokens->dtype != DType::kI32 || tokens->rank != 1 || tokens->rows() > kMaxPrompt)
    return Error{fmt::format("goldens: {}.tokens must be I32 [K]", name), name, ""};
  for (const int32_t id : Ids(*tokens))
    if (id < 0 || id >= config.vocab_size)
      return Error{fmt::format("goldens: {}.tokens holds {}", name, id), name, ""};
  if (!HasShape(golden, DType::kF32, tokens->rows(), drafter_->config.vocab_size))
    return Error{fmt::format("goldens: {}.logits must be F32 [{}, {}]", name, tokens->rows(),
                             config.vocab_size),
                 name, ""};
  session_->Reset();
  for (size_t begin = 0; begin < entry.ids.size(); begin += static_cast<size_t>(chunk_))
    session_->Append(
        entry.ids.subspan(begin, std::min(static_cast<size_t>(chunk_), entry.ids.size() - begin)),
        false);
  std::vector<float> state = last_hidden;
  Difference difference;
  std::vector<std::pair<size_t, int32_t>> other;
  const auto position = tag == "Lm1" ? DraftPosition::kNewest : DraftPosition::kLastKv;
  int32_t token = entry.greedy[0];
  for (size_t step = 0; step < static_cast<size_t>(tokens->rows()); ++step) {
    const DraftOutput out = session_->Draft(
        token, MakeTensor(state.data(), DType::kF32, 1, static_cast<int64_t>(state.size())),
        position);
    const float* row = golden->Rows(static_cast<int64_t>(step), 1).f32();
    difference.Update(static_cast<int64_t>(step), out.logits.f32(), row, out.logits.cols());
    const int32_t ours = ArgMax(out.logits.f32(), out.logits.cols());
    token = Ids(*tokens)[step];
    if (ours != token) other.emplace_back(step, ours);
    state.assign(out.hidden.f32(), out.hidden.f32() + out.hidden.cols());
  }
  const bool close = Report(name + ".logits", difference);
  int wrong = 0;
  for (const auto& [step, ours] : other) {
    const float* row = golden->Rows(static_cast<int64_t>(step), 1).f32();
    if (!close || TopTwoGap(row, golden->cols()) > 2 * difference.largest) ++wrong;
  }
  Count(wrong == 0, fmt::format("{:<22} {} tokens, {} ties, {} wrong", name + ".tokens",
                                tokens->rows(), static_cast<int>(other.size()) - wrong, wrong));
  return Ok{};
}

}  // namespace lapidary
