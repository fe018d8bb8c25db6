#include "engine/rank.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace lapidary {
namespace {

Tensor Ids(std::vector<int32_t>& ids, int64_t count) {
  return MakeTensor(ids.data(), DType::kI32, count);
}

}  // namespace

Rank::Rank(std::unique_ptr<StepModel> model, const RankOptions& options)
    : model_(std::move(model)),
      options_(options),
      hidden_(static_cast<size_t>(model_->hidden())),
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
  queries_.clear();
  std::vector<size_t> ends;  // of the queries of each entry
  int64_t first_output = 0;
  for (const PlannedRows& rows : plan.rows) {
    AddQueries(rows, first_output);
    first_output += rows.num_outputs;
    ends.push_back(queries_.size());
  }
  const std::span<RowAnswer> answers = model_->row_sampler().Sample(output.logits, queries_);
  size_t begin = 0;
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    const size_t count = ends[i] - begin;
    news.rows.push_back(Accept(plan.rows[i], std::span(queries_).subspan(begin, count),
                               answers.subspan(begin, count), output.hidden));
    begin = ends[i];
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

SamplingRow Rank::SamplingOf(const SlotState& slot, size_t length) const {
  const SequenceParams& params = *slot.params;
  const SamplingParams& sampling = params.sampling;
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
  row.position = length;
  row.history = std::span(slot.tokens).first(length);
  row.num_prompt = static_cast<size_t>(params.num_prompt);
  row.suppress = options_.suppress_ids;
  row.bias = sampling.logit_bias;
  row.allowed = sampling.allowed_ids;
  row.bad_words = sampling.bad_words;
  if (length - row.num_prompt < static_cast<size_t>(sampling.min_tokens))
    row.held_off = params.stop_ids;
  return row;
}

void Rank::AddDraw(const SlotState& slot, size_t length, int64_t row, bool continues) {
  // A sequence that has ended meanwhile runs into its bound here; its news are dropped.
  if (length >= static_cast<size_t>(slot.params->max_length)) return;
  const SamplingParams& sampling = slot.params->sampling;
  RowQuery& query = queries_.emplace_back();
  query.row = row;
  query.draws = true;
  query.sampling = SamplingOf(slot, length);
  query.continues = continues;
  query.wants_logprobs = sampling.num_logprobs >= 0 || !sampling.logprob_ids.empty();
  query.num_top = std::max(0, sampling.num_logprobs);
  query.asked = sampling.logprob_ids;
}

void Rank::AddQueries(const PlannedRows& rows, int64_t first_output) {
  SlotState& slot = slots_.at(static_cast<size_t>(rows.slot));
  const size_t length = slot.tokens.size();
  if (rows.decode) {
    // Row j draws behind drafts 1 .. j, so these are taken for drawn until Accept.
    slot.tokens.insert(slot.tokens.end(), slot.drafts.begin(),
                       slot.drafts.begin() + rows.num_rows - 1);
    for (int j = 0; j < rows.num_rows; ++j)
      AddDraw(slot, length + static_cast<size_t>(j), first_output + j,
              j > 0 && options_.simulated_accept_length == 0);
    return;
  }
  const int first_position = rows.first_position + rows.num_rows - rows.num_outputs;
  for (int i = 0; i < rows.num_outputs; ++i) {
    if (rows.samples && i == rows.num_outputs - 1) {
      AddDraw(slot, length, first_output + i, false);
      return;
    }
    RowQuery& query = queries_.emplace_back();
    query.row = first_output + i;
    const int next = first_position + i + 1, num_top = slot.params->sampling.num_prompt_logprobs;
    query.wants_logprobs = num_top >= 0 && next < slot.params->num_prompt;
    if (!query.wants_logprobs) continue;
    query.token = slot.tokens[static_cast<size_t>(next)];
    query.num_top = num_top;
  }
}

// The token a row draws is the sequence's next one; the row after it counts only if its draft is
// that token. So the tokens are those that decoding without drafts gives.
RowsNews Rank::Accept(const PlannedRows& rows, std::span<const RowQuery> queries,
                      std::span<RowAnswer> answers, const Tensor& hidden) {
  RowsNews news;
  SlotState& slot = slots_[static_cast<size_t>(rows.slot)];
  news.num_drafted = rows.decode ? rows.num_rows - 1 : 0;
  slot.tokens.resize(slot.tokens.size() - static_cast<size_t>(news.num_drafted));
  const bool simulates = options_.simulated_accept_length > 0 && rows.decode;
  const auto accepts =
      static_cast<size_t>(simulates ? SimulatedAccepts(slot, news.num_drafted) : 0);
  size_t count = 0;
  for (; count < queries.size(); ++count) {
    if (simulates && count > accepts) break;
    if (simulates && count < accepts) answers[count].token = slot.drafts[count];
    if (queries[count].continues && slot.drafts[count - 1] != slot.tokens.back()) break;
    if (!TakeAnswer(slot, queries[count], answers[count], news)) break;
  }
  if (news.tokens.empty()) {
    // A sequence that ends without a token was planned to be longer: one step more may run for it,
    // whose window begins a row later. Its news are dropped, any token will do.
    if (rows.samples && (news.not_finite || news.exhausted)) slot.tokens.push_back(0);
    return news;
  }
  news.num_accepted = static_cast<int32_t>(news.tokens.size()) - 1;
  if (model_->has_drafter())
    std::memcpy(states_.data() + static_cast<size_t>(rows.slot) * hidden_,
                hidden.Rows(queries[count - 1].row, 1).f32(), hidden_ * sizeof(float));
  return news;
}

int Rank::SimulatedAccepts(const SlotState& slot, int num_drafts) const {
  const double wanted = options_.simulated_accept_length - 1;
  const double x = UniformAt(slot.params->sampling.seed, slot.params->choice, slot.tokens.size());
  return std::min(num_drafts, static_cast<int>(wanted + x));
}

// False: nothing behind it counts.
bool Rank::TakeAnswer(SlotState& slot, const RowQuery& query, RowAnswer& answer,
                      RowsNews& news) const {
  if (!answer.finite) {
    news.not_finite = true;
    return false;
  }
  if (query.draws && !answer.token) {
    news.exhausted = true;
    return false;
  }
  if (answer.logprobs)
    (query.draws ? news.logprobs : news.prompt_logprobs).push_back(std::move(*answer.logprobs));
  if (!query.draws) return true;
  news.tokens.push_back(*answer.token);
  slot.tokens.push_back(*answer.token);
  return true;
}

std::span<const RowAnswer> Rank::BestDrafts(const Tensor& logits, int64_t count) {
  queries_.assign(static_cast<size_t>(count), {});
  for (int64_t i = 0; i < count; ++i) {
    RowQuery& query = queries_[static_cast<size_t>(i)];
    query.row = i;
    query.draws = true;
    query.sampling.temperature = 0;
    query.sampling.suppress = options_.suppress_ids;
  }
  return model_->row_sampler().Sample(logits, queries_);
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
    const std::span<const RowAnswer> best = BestDrafts(out.logits, count);
    for (size_t i = 0; i < best.size(); ++i) {
      tokens[i] = best[i].token.value_or(0);  // of no finite logits: a draft may be wrong
      slots_[static_cast<size_t>(slots[i])].drafts.push_back(tokens[i]);
    }
  }
}

}  // namespace lapidary
