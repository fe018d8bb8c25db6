#include "engine/rank.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace lapidary {
namespace {

std::span<const float> LogitsOf(const StepOutput& output, int64_t row) {
  return {output.logits.Rows(row, 1).f32(), static_cast<size_t>(output.logits.cols())};
}

TokenLogprobs LogprobsOf(std::span<const float> logits, int32_t token, int num_top,
                         const std::vector<int32_t>& asked) {
  const RowLogprobs row(logits);
  TokenLogprobs result;
  result.token = token;
  result.logprob = row.of(token);
  result.top = row.Top(std::max(0, num_top));
  for (const int32_t id : asked) result.asked.emplace_back(id, row.of(id));
  return result;
}

Tensor Ids(std::vector<int32_t>& ids, int64_t count) {
  return MakeTensor(ids.data(), DType::kI32, count);
}

}  // namespace

Rank::Rank(std::unique_ptr<StepModel> model, const RankOptions& options)
    : model_(std::move(model)),
      options_(options),
      hidden_(static_cast<size_t>(model_->hidden())),
      sampler_(model_->vocab_size()),
      slots_(static_cast<size_t>(options.max_running)),
      owners_(slots_.size()),
      builder_(Table(PageKind::kFull), Table(PageKind::kSliding), model_->window()) {
  if (!model_->has_drafter()) return;
  states_.resize(slots_.size() * hidden_);
  draft_states_.resize(slots_.size() * hidden_);
}

Tensor Rank::Table(PageKind kind) {
  std::vector<int32_t>& cells = tables_[static_cast<size_t>(kind)];
  cells.resize(
      static_cast<size_t>(options_.max_running) * static_cast<size_t>(options_.table_cells), -1);
  return MakeTensor(cells.data(), DType::kI32, options_.max_running, options_.table_cells);
}

StepNews Rank::Run(const StepPlan& plan) {
  Apply(plan);
  StepNews news;
  news.number = plan.number;
  if (plan.rows.empty()) return news;
  BuildBatch(plan);
  const StepOutput output = model_->Forward(builder_.Build(owners_));
  int64_t first_output = 0;
  for (const PlannedRows& rows : plan.rows) {
    news.rows.push_back(Accept(rows, first_output, output));
    first_output += rows.num_outputs;
  }
  if (model_->has_drafter()) Draft(plan);
  return news;
}

void Rank::Apply(const StepPlan& plan) {
  for (const int32_t slot : plan.freed_slots) {
    slots_.at(static_cast<size_t>(slot)) = {};
    for (const PageKind kind : {PageKind::kFull, PageKind::kSliding}) {
      Tensor row = Table(kind).Rows(slot, 1);
      std::fill(row.i32(), row.i32() + row.cols(), -1);
    }
  }
  for (const SlotStart& start : plan.starts) {
    slots_.at(static_cast<size_t>(start.slot)) = {start.params, start.tokens, {}};
    owners_[static_cast<size_t>(start.slot)] = start.id;
  }
  for (const TableChange& change : plan.table_changes) {
    CHECK(change.cell >= 0 && change.cell < options_.table_cells, "cell {}", change.cell);
    Table(change.kind).Rows(change.slot, 1).i32()[change.cell] = change.page;
  }
}

void Rank::BuildBatch(const StepPlan& plan) {
  builder_.Clear();
  std::vector<int32_t> verified;
  for (const PlannedRows& rows : plan.rows) {
    const SlotState& slot = slots_.at(static_cast<size_t>(rows.slot));
    if (!rows.decode) {
      builder_.AddChunk(rows.slot, rows.first_position,
                        std::span(slot.tokens)
                            .subspan(static_cast<size_t>(rows.first_position),
                                     static_cast<size_t>(rows.num_rows)),
                        rows.num_outputs, rows.window_pages);
      continue;
    }
    const auto num_drafts = static_cast<size_t>(rows.num_rows - 1);
    CHECK(num_drafts <= slot.drafts.size(), "{} drafts of {}", num_drafts, slot.drafts.size());
    verified.assign(1, slot.tokens.back());
    verified.insert(verified.end(), slot.drafts.begin(),
                    slot.drafts.begin() + static_cast<std::ptrdiff_t>(num_drafts));
    builder_.AddDecode(rows.slot, static_cast<int32_t>(slot.tokens.size()) - 1, verified);
  }
}

// Row by row: the token a row draws is the sequence's next one; the row after it counts only if its
// draft is that token. So the tokens are those that decoding without drafts gives.
RowsNews Rank::Accept(const PlannedRows& rows, int64_t first_output, const StepOutput& output) {
  RowsNews news;
  SlotState& slot = slots_.at(static_cast<size_t>(rows.slot));
  if (rows.num_outputs == 0) return news;
  if (!rows.decode) ScorePrompt(rows, first_output, output, news);
  if (!rows.samples) return news;
  if (!news.not_finite) DrawRows(rows, first_output, output, news);
  // A sequence that ends without a token was planned to be longer: one step more may run for it,
  // whose window begins a row later. Its news are dropped, any token will do.
  if (news.tokens.empty() && (news.not_finite || news.exhausted)) slot.tokens.push_back(0);
  return news;
}

void Rank::DrawRows(const PlannedRows& rows, int64_t first_output, const StepOutput& output,
                    RowsNews& news) {
  SlotState& slot = slots_[static_cast<size_t>(rows.slot)];
  const int64_t first = rows.decode ? first_output : first_output + rows.num_outputs - 1;
  const int num_drafts = rows.decode ? rows.num_rows - 1 : 0;
  // A sequence that has ended meanwhile runs into its bound here; its news are dropped.
  const auto max_length = static_cast<size_t>(slot.params->max_length);
  int row = 0;
  for (; row <= num_drafts && slot.tokens.size() < max_length; ++row) {
    if (row > 0 && slot.drafts[static_cast<size_t>(row - 1)] != slot.tokens.back()) break;
    const std::span<const float> logits = LogitsOf(output, first + row);
    if (!AllFinite(logits)) {
      news.not_finite = true;
      break;
    }
    if (!Draw(slot, logits, news)) break;
  }
  news.num_drafted = num_drafts;
  news.num_accepted = std::max(0, row - 1);
  if (model_->has_drafter() && row > 0)
    std::memcpy(states_.data() + static_cast<size_t>(rows.slot) * hidden_,
                output.hidden.Rows(first + row - 1, 1).f32(), hidden_ * sizeof(float));
}

void Rank::ScorePrompt(const PlannedRows& rows, int64_t first_output, const StepOutput& output,
                       RowsNews& news) {
  const SlotState& slot = slots_[static_cast<size_t>(rows.slot)];
  const int num_top = slot.params->sampling.num_prompt_logprobs;
  const int first_position = rows.first_position + rows.num_rows - rows.num_outputs;
  for (int i = 0; i < rows.num_outputs; ++i) {
    const std::span<const float> logits = LogitsOf(output, first_output + i);
    if (!AllFinite(logits)) {
      news.not_finite = true;
      return;
    }
    const int next = first_position + i + 1;
    if (num_top >= 0 && next < slot.params->num_prompt)
      news.prompt_logprobs.push_back(
          LogprobsOf(logits, slot.tokens[static_cast<size_t>(next)], num_top, {}));
  }
}

bool Rank::Draw(SlotState& slot, std::span<const float> logits, RowsNews& news) {
  const SequenceParams& params = *slot.params;
  const SamplingParams& sampling = params.sampling;
  const auto num_prompt = static_cast<size_t>(params.num_prompt);
  SamplingRow row;
  row.temperature = sampling.temperature;
  row.top_k = sampling.top_k;
  row.top_p = sampling.top_p;
  row.min_p = sampling.min_p;
  row.presence_penalty = sampling.presence_penalty;
  row.frequency_penalty = sampling.frequency_penalty;
  row.repetition_penalty = sampling.repetition_penalty;
  row.seed = sampling.seed;
  row.choice = params.choice;
  row.position = slot.tokens.size();
  row.history = slot.tokens;
  row.num_prompt = num_prompt;
  row.suppress = options_.suppress_ids;
  row.bias = sampling.logit_bias;
  row.allowed = sampling.allowed_ids;
  row.bad_words = sampling.bad_words;
  if (slot.tokens.size() - num_prompt < static_cast<size_t>(sampling.min_tokens))
    row.held_off = params.stop_ids;
  const auto token = sampler_.Sample(logits, row);
  if (!token) {
    news.exhausted = true;
    return false;
  }
  if (sampling.num_logprobs >= 0 || !sampling.logprob_ids.empty())
    news.logprobs.push_back(
        LogprobsOf(logits, *token, sampling.num_logprobs, sampling.logprob_ids));
  news.tokens.push_back(*token);
  slot.tokens.push_back(*token);
  return true;
}

int32_t Rank::BestDraft(std::span<float> logits) const {
  for (const int32_t id : options_.suppress_ids)
    logits[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// One pass drafts one token for every sequence that wants that many; longest bursts first, so that
// the passes work on shrinking prefixes of the rows.
void Rank::Draft(const StepPlan& plan) {
  std::vector<const PlannedRows*> bursts;
  for (const PlannedRows& rows : plan.rows) {
    if (rows.samples) slots_[static_cast<size_t>(rows.slot)].drafts.clear();
    if (rows.num_new_drafts > 0) bursts.push_back(&rows);
  }
  std::stable_sort(bursts.begin(), bursts.end(), [](const auto* a, const auto* b) {
    return a->num_new_drafts > b->num_new_drafts;
  });
  std::vector<int32_t> tokens, positions, key_ends, slots, chunks(bursts.size(), -1);
  for (const PlannedRows* rows : bursts) {
    const SlotState& slot = slots_[static_cast<size_t>(rows->slot)];
    const auto newest = static_cast<int32_t>(slot.tokens.size()) - 1;
    std::memcpy(draft_states_.data() + tokens.size() * hidden_,
                states_.data() + static_cast<size_t>(rows->slot) * hidden_,
                hidden_ * sizeof(float));
    tokens.push_back(slot.tokens.back());
    positions.push_back(plan.draft_position == DraftPosition::kNewest ? newest : newest - 1);
    key_ends.push_back(newest);
    slots.push_back(rows->slot);
  }
  Tensor states = MakeTensor(draft_states_.data(), DType::kF32, static_cast<int64_t>(bursts.size()),
                             static_cast<int64_t>(hidden_));
  for (int pass = 0;; ++pass) {
    const auto count = static_cast<int64_t>(
        std::partition_point(bursts.begin(), bursts.end(),
                             [pass](const auto* rows) { return rows->num_new_drafts > pass; }) -
        bursts.begin());
    if (count == 0) return;
    const RowSet rows{Ids(positions, count),
                      Ids(key_ends, count),
                      Ids(slots, count),
                      Ids(chunks, count),
                      Table(PageKind::kFull),
                      Table(PageKind::kSliding),
                      {}};
    DraftOutput out = model_->Draft(Ids(tokens, count), states.Rows(0, count), rows);
    states = out.hidden;
    for (int64_t i = 0; i < count; ++i) {
      Tensor row = out.logits.Rows(i, 1);
      tokens[static_cast<size_t>(i)] = BestDraft({row.f32(), static_cast<size_t>(row.cols())});
      slots_[static_cast<size_t>(slots[static_cast<size_t>(i)])].drafts.push_back(
          tokens[static_cast<size_t>(i)]);
    }
  }
}

}  // namespace lapidary
