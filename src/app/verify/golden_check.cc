#include "app/verify/golden_check.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "app/verify/ranks.h"

namespace lapidary {
namespace {

int32_t ArgMax(const float* row, int64_t count) { return static_cast<int32_t>(BestOf(row, count)); }

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

GoldenCheck::GoldenCheck(const Checkpoint& target, const Checkpoint* drafter, Ops& ops,
                         const Options& options, std::function<void(const std::string&)> print)
    : target_(target), drafter_(drafter), ops_(ops), options_(options), print_(std::move(print)) {}

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
  const bool passed = d.finite && d.largest <= options_.max_abs;
  Count(passed, d.finite ? fmt::format("{:<22} max |d| {:.3e} at [{}, {}], limit {:g}", name,
                                       d.largest, d.row, d.column, options_.max_abs)
                         : fmt::format("{:<22} not finite at [{}, {}]", name, d.row, d.column));
  return passed;
}

void GoldenCheck::Report(const char* name, const Bf16Cost& cost) {
  const Bf16Cost::Verdict verdict = cost.Judge();
  Count(verdict.passed, fmt::format("{:<22} {}", name, verdict.text));
}

Result<std::vector<TextEntry>> GoldenCheck::ReadTexts(const Goldens& goldens) {
  std::set<std::string> texts, media;
  for (const auto& [key, tensor] : goldens) {
    const std::string name = key.substr(0, key.find('.', key.find('.') + 1));
    if (key.starts_with("text.")) texts.insert(name);
    if (key.starts_with("image.") || key.starts_with("audio.")) media.insert(name);
  }
  if (texts.empty()) return Error{"goldens: no text.P.ids entry; is this a goldens file?", "", ""};
  std::vector<TextEntry> entries;
  for (const std::string& name : texts) {
    auto entry = ReadTextEntry(goldens, name, target_.config, options_.dtype);
    if (!entry.ok()) return entry.error();
    entries.push_back(std::move(entry).value());
  }
  counts_.skipped += static_cast<int>(media.size());
  return entries;
}

Result<CheckCounts> GoldenCheck::Run(const Goldens& goldens) {
  const auto entries = ReadTexts(goldens);
  if (!entries.ok()) return entries.error();
  size_t longest = 0, longest_prompt = 0;
  for (const TextEntry& entry : entries.value()) {
    longest = std::max(longest, entry.ids.size() + entry.greedy.size());
    longest_prompt = std::max(longest_prompt, entry.ids.size());
  }
  if (longest > static_cast<size_t>(target_.config.max_position))
    return Error{
        fmt::format(
            "goldens: a prompt and its continuation have {} tokens, the model's context is {}",
            longest, target_.config.max_position),
        "", ""};
  if (options_.chunk <= 0)
    options_.chunk = static_cast<int>(std::min<size_t>(longest_prompt, 1024));
  session_ =
      std::make_unique<SoloSession>(target_, drafter_, ops_,
                                    SoloSession::Options{static_cast<int>(longest), options_.chunk,
                                                         true, options_.dtype, options_.kv_fold});
  bool has_drafts = false;
  for (const TextEntry& entry : entries.value()) {
    std::vector<float> last_hidden;
    CheckText(entry, last_hidden);
    for (const auto& [tag, position] :
         {std::pair{"Lm1", DraftPosition::kNewest}, std::pair{"Lm2", DraftPosition::kLastKv}}) {
      const std::string name = fmt::format("draft{}.{}", entry.name.substr(4), tag);
      if (!HasDraftEntry(goldens, name)) continue;
      if (drafter_ == nullptr || entry.greedy.empty()) {
        ++counts_.skipped;
        continue;
      }
      const auto draft = ReadDraftEntry(goldens, name, drafter_->config, options_.dtype);
      if (!draft.ok()) return draft.error();
      CheckDraft(entry, draft.value(), position, last_hidden);
      has_drafts = true;
    }
  }
  if (rounds()) Report("logits", text_cost_);
  if (greedy_steps_ > 0) {
    const Bf16Cost::Verdict verdict = text_cost_.JudgeApart(greedy_steps_, greedy_apart_);
    Count(verdict.passed,
          fmt::format("{:<22} {} tokens, {}", "greedy", greedy_steps_, verdict.text));
  }
  if (rounds() && has_drafts) Report("drafts", draft_cost_);
  return counts_;
}

StepOutput GoldenCheck::Prefill(std::span<const int32_t> ids) {
  session_->Reset();
  StepOutput out;
  const auto chunk = static_cast<size_t>(options_.chunk);
  for (size_t begin = 0; begin < ids.size(); begin += chunk)
    out = session_->Append(ids.subspan(begin, std::min(chunk, ids.size() - begin)), false);
  return out;
}

void GoldenCheck::CheckText(const TextEntry& entry, std::vector<float>& last_hidden) {
  Difference logits, hidden;
  session_->Reset();
  const auto length = static_cast<int64_t>(entry.ids.size());
  size_t next = 0;  // of entry.rows
  for (int64_t begin = 0; begin < length; begin += options_.chunk) {
    const int64_t count = std::min<int64_t>(options_.chunk, length - begin);
    const bool wanted = next < entry.rows.size() && entry.rows[next] < begin + count;
    const StepOutput out = session_->Append(
        entry.ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)), wanted);
    std::vector<Bf16Cost::Row> rows;
    for (; next < entry.rows.size() && entry.rows[next] < begin + count; ++next) {
      const auto golden = static_cast<int64_t>(next);
      const int64_t row = entry.rows[next] - begin;
      const float* ours = out.logits.Rows(row, 1).f32();
      const float* exact = entry.logits.Rows(golden, 1).f32();
      if (rounds()) {
        rows.push_back({exact, entry.bf16_logits.Rows(golden, 1).bf16(), ours});
        continue;
      }
      logits.Update(begin + row, ours, exact, out.logits.cols());
      hidden.Update(begin + row, out.hidden.Rows(row, 1).f32(), entry.hidden.Rows(golden, 1).f32(),
                    out.hidden.cols());
    }
    text_cost_.Add(rows, out.logits.cols());
    const float* last = out.hidden.Rows(out.hidden.rows() - 1, 1).f32();
    last_hidden.assign(last, last + out.hidden.cols());
  }
  if (!rounds()) {
    Report(entry.name + ".logits", logits);
    Report(entry.name + ".hidden", hidden);
  }
  CheckGreedy(entry, logits.finite ? logits.largest : INFINITY);
}

// Teacher-forced: each step sees the golden tokens before it, so that one tie does not hide the
// steps behind it.
void GoldenCheck::CheckGreedy(const TextEntry& entry, double logit_difference) {
  StepOutput out = Prefill(entry.ids);
  int ties = 0, wrong = 0;
  std::string first;
  for (size_t step = 0; step < entry.greedy.size(); ++step) {
    if (step > 0) out = session_->Append(entry.greedy.subspan(step - 1, 1), false);
    const float* row = out.logits.f32();
    const int32_t ours = ArgMax(row, out.logits.cols()), golden = entry.greedy[step];
    if (ours == golden) continue;
    bool tie = false;
    if (rounds()) {
      const Tensor top = entry.greedy_top.Rows(static_cast<int64_t>(step), 1);
      tie = std::find(top.i32(), top.i32() + top.cols(), ours) != top.i32() + top.cols() &&
            RankOf(row, out.logits.cols(), golden) < top.cols();
    } else {
      tie = logit_difference <= options_.max_abs &&
            double{entry.margins.f32()[step]} <= 2 * logit_difference;
    }
    ++(tie ? ties : wrong);
    if (first.empty() || (!tie && wrong == 1))  // the first wrong one, or else the first
      first = fmt::format(", first at step {}: {} for {}, {:.3e} above it", step, ours, golden,
                          row[ours] - row[golden]);
  }
  const std::string line =
      fmt::format("{:<22} {} tokens, {} ties, {} wrong{}", entry.name + ".greedy",
                  entry.greedy.size(), ties, wrong, first);
  if (rounds()) {
    greedy_steps_ += static_cast<int64_t>(entry.greedy.size());
    greedy_apart_ += wrong;
    print_("      " + line);
  } else {
    Count(wrong == 0, line);
  }
}

void GoldenCheck::CheckDraft(const TextEntry& text, const DraftEntry& entry, DraftPosition position,
                             const std::vector<float>& last_hidden) {
  Prefill(text.ids);
  std::vector<float> state = last_hidden;
  Difference difference;
  std::vector<std::pair<size_t, int32_t>> other;
  int32_t token = text.greedy[0];
  for (size_t step = 0; step < entry.tokens.size(); ++step) {
    const DraftOutput out = session_->Draft(
        token, MakeTensor(state.data(), DType::kF32, 1, static_cast<int64_t>(state.size())),
        position);
    const auto row = static_cast<int64_t>(step);
    const float* exact = entry.logits.Rows(row, 1).f32();
    token = entry.tokens[step];
    state.assign(out.hidden.f32(), out.hidden.f32() + out.hidden.cols());
    if (rounds()) {
      const Bf16Cost::Row drafted{exact, entry.bf16_logits.Rows(row, 1).bf16(), out.logits.f32()};
      draft_cost_.Add({&drafted, 1}, out.logits.cols());
      continue;
    }
    difference.Update(row, out.logits.f32(), exact, out.logits.cols());
    const int32_t ours = ArgMax(out.logits.f32(), out.logits.cols());
    if (ours != token) other.emplace_back(step, ours);
  }
  if (!rounds()) CheckDraftTokens(entry, difference, other);
}

void GoldenCheck::CheckDraftTokens(const DraftEntry& entry, const Difference& difference,
                                   const std::vector<std::pair<size_t, int32_t>>& other) {
  const bool close = Report(entry.name + ".logits", difference);
  int wrong = 0;
  for (const auto& [step, ours] : other) {
    const float* row = entry.logits.Rows(static_cast<int64_t>(step), 1).f32();
    if (!close || TopTwoGap(row, entry.logits.cols()) > 2 * difference.largest) ++wrong;
  }
  Count(wrong == 0,
        fmt::format("{:<22} {} tokens, {} ties, {} wrong", entry.name + ".tokens",
                    entry.tokens.size(), static_cast<int>(other.size()) - wrong, wrong));
}

}  // namespace lapidary
