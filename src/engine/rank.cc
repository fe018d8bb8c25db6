#include "engine/rank.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/trace.h"

namespace lapidary {

Rank::Rank(std::unique_ptr<StepModel> model, const RankOptions& options)
    : model_(std::move(model)),
      states_(model_->slot_states()),
      options_(options),
      slots_(static_cast<size_t>(options.max_running)),
      owners_(slots_.size()),
      builder_(Table(PageKind::kFull), Table(PageKind::kSliding), model_->window()) {
  states_.SimulateAcceptLength(options.simulated_accept_length);
}

Tensor Rank::Table(PageKind kind) {
  std::vector<int32_t>& cells = tables_[static_cast<size_t>(kind)];
  cells.resize(
      static_cast<size_t>(options_.max_running) * static_cast<size_t>(options_.table_cells), -1);
  return MakeTensor(cells.data(), DType::kI32, options_.max_running, options_.table_cells);
}

void Rank::Launch(const StepPlan& plan) {
  const TraceSpan span("launch");
  Apply(plan);
  const bool needs_history =
      std::any_of(plan.rows.begin(), plan.rows.end(),
                  [this](const PlannedRows& rows) { return NeedsHistory(rows); });
  while (needs_history && !unread_.empty()) Collect();
  unread_.emplace_back().number = plan.number;
  if (plan.rows.empty()) return;
  BuildBatch(plan);
  SortBursts(plan);
  states_.Begin({begins_, rows_, drafting_});
  begins_.clear();
  const Batch batch = builder_.Build(owners_);
  if (model_->is_host()) {
    states_.PlaceRows(batch.tokens, batch.rows, batch.offsets);
    states_.PlaceRows(batch.output_tokens, batch.output, batch.output_offsets);
  }
  const StepOutput output = model_->Forward(batch);
  RowDraws draws;
  if (!queries_.empty()) draws = model_->row_sampler().Queue(output.logits, queries_);
  ForgetAssumed(plan);
  Unread& step = unread_.back();
  for (const RowQuery& query : queries_) {
    step.is_draw.push_back(query.draws);
    step.has_logprobs.push_back(query.wants_logprobs);
    if (query.wants_logprobs) step.sampler_call = draws.call;
  }
  states_.Accept(draws.tokens, output.hidden);
  Draft(plan);
}

void Rank::Apply(const StepPlan& plan) {
  for (const int32_t number : plan.freed_slots) {
    slot(number) = {};
    for (const PageKind kind : {PageKind::kFull, PageKind::kSliding}) {
      Tensor row = Table(kind).Rows(number, 1);
      std::fill(row.i32(), row.i32() + row.cols(), -1);
    }
  }
  for (const SlotStart& start : plan.starts) Begin(start);
  for (const TableChange& change : plan.table_changes) {
    CHECK(change.cell >= 0 && change.cell < options_.table_cells, "cell {}", change.cell);
    Table(change.kind).Rows(change.slot, 1).i32()[change.cell] = change.page;
  }
}

void Rank::Begin(const SlotStart& start) {
  const SequenceParams& params = *start.params;
  slot(start.slot) = {start.params, start.tokens, 0, 0, 0, ++num_begun_};
  owners_[static_cast<size_t>(start.slot)] = start.id;
  SlotBegin begin;
  begin.slot = start.slot;
  begin.length = static_cast<int32_t>(start.tokens.size());
  begin.newest = start.tokens.empty() ? 0 : start.tokens.back();
  begin.limit = params.max_length;
  begin.seed = params.sampling.seed;
  begin.choice = params.choice;
  // A slot may begin twice before a step runs.
  std::erase_if(begins_, [&](const SlotBegin& other) { return other.slot == start.slot; });
  begins_.push_back(begin);
}

bool Rank::NeedsHistory(const PlannedRows& rows) const {
  if (!rows.decode) return false;  // all of a prompt is known
  const Slot& slot = slots_.at(static_cast<size_t>(rows.slot));
  const SamplingParams& sampling = slot.params->sampling;
  const int64_t num_generated = static_cast<int64_t>(slot.tokens.size()) - slot.params->num_prompt;
  return sampling.presence_penalty != 0 || sampling.frequency_penalty != 0 ||
         sampling.repetition_penalty != 1 || !sampling.bad_words.empty() ||
         num_generated < sampling.min_tokens;
}

void Rank::BuildBatch(const StepPlan& plan) {
  builder_.Clear();
  rows_.clear();
  queries_.clear();
  int64_t first_output = 0;
  for (const PlannedRows& rows : plan.rows) {
    AddRows(rows);
    const auto first_query = static_cast<int32_t>(queries_.size());
    AddQueries(rows, first_output);
    SlotRows& asked = rows_.emplace_back();
    asked.slot = rows.slot;
    asked.first_query = first_query;
    asked.num_queries = static_cast<int32_t>(queries_.size()) - first_query;
    asked.first_output = static_cast<int32_t>(first_output);
    asked.num_drafts = rows.decode ? rows.num_rows - 1 : 0;
    asked.draws = rows.samples;
    first_output += rows.num_outputs;
    Slot& slot = slots_[static_cast<size_t>(rows.slot)];
    const int most_tokens = rows.samples ? asked.num_drafts + 1 : 0;
    unread_.back().rows.push_back({slot.number, asked, most_tokens});
    slot.num_unread += most_tokens;
    if (rows.samples) slot.num_drafts = rows.num_new_drafts;
  }
}

void Rank::AddRows(const PlannedRows& rows) {
  const Slot& slot = slots_.at(static_cast<size_t>(rows.slot));
  if (!rows.decode) {
    builder_.AddChunk(
        rows.slot, rows.first_position,
        std::span(slot.tokens)
            .subspan(static_cast<size_t>(rows.first_position), static_cast<size_t>(rows.num_rows)),
        rows.num_outputs, rows.window_pages);
    return;
  }
  CHECK(rows.num_rows - 1 <= slot.num_drafts, "{} drafts of {}", rows.num_rows - 1,
        slot.num_drafts);
  // Behind the longest that the sequence can be; SlotStates puts in what it is.
  const int length =
      std::min(static_cast<int>(slot.tokens.size()) + slot.num_unread,
               std::max(static_cast<int>(slot.tokens.size()), slot.params->max_length));
  constexpr std::array<int32_t, kMaxDrafts + 1> kUnknown{};
  builder_.AddDecode(rows.slot, length - 1,
                     std::span(kUnknown).first(static_cast<size_t>(rows.num_rows)));
}

void Rank::AddQueries(const PlannedRows& rows, int64_t first_output) {
  if (rows.decode) return AddDraws(rows, first_output);
  const Slot& slot = slots_[static_cast<size_t>(rows.slot)];
  const int first_position = rows.first_position + rows.num_rows - rows.num_outputs;
  for (int i = 0; i < rows.num_outputs; ++i) {
    if (rows.samples && i == rows.num_outputs - 1) {
      RowQuery& query = queries_.emplace_back(DrawOf(slot, slot.tokens.size(), true));
      query.row = first_output + i;
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

// Row j draws behind drafts 1 .. j.
void Rank::AddDraws(const PlannedRows& rows, int64_t first_output) {
  Slot& slot = slots_[static_cast<size_t>(rows.slot)];
  const size_t length = slot.tokens.size();
  const bool has_history = model_->is_host() || NeedsHistory(rows);
  if (has_history && rows.num_rows > 1) {
    const std::array<int32_t, kMaxDrafts> drafts = states_.Drafts(rows.slot);
    slot.tokens.insert(slot.tokens.end(), drafts.begin(), drafts.begin() + rows.num_rows - 1);
    slot.num_assumed = rows.num_rows - 1;
  }
  for (int j = 0; j < rows.num_rows; ++j) {
    RowQuery& query = queries_.emplace_back(
        DrawOf(slot, length + static_cast<size_t>(has_history ? j : 0), has_history));
    query.row = first_output + j;
    query.continues = has_history && j > 0 && options_.simulated_accept_length == 0;
    if (has_history) continue;
    query.slot = rows.slot;
    query.offset = j;
  }
}

// Drafts are no tokens of a sequence beyond the queries that assume them.
void Rank::ForgetAssumed(const StepPlan& plan) {
  for (const PlannedRows& rows : plan.rows) {
    Slot& slot = slots_[static_cast<size_t>(rows.slot)];
    slot.tokens.resize(slot.tokens.size() - static_cast<size_t>(slot.num_assumed));
    slot.num_assumed = 0;
  }
}

RowQuery Rank::DrawOf(const Slot& slot, size_t length, bool has_history) const {
  const SequenceParams& params = *slot.params;
  const SamplingParams& sampling = params.sampling;
  RowQuery query;
  query.draws = true;
  query.wants_logprobs = sampling.num_logprobs >= 0 || !sampling.logprob_ids.empty();
  query.num_top = std::max(0, sampling.num_logprobs);
  query.asked = sampling.logprob_ids;
  SamplingRow& row = query.sampling;
  row.temperature = sampling.temperature;
  row.top_k = sampling.top_k;
  row.top_p = sampling.top_p;
  row.min_p = sampling.min_p;
  row.presence_penalty = sampling.presence_penalty;
  row.frequency_penalty = sampling.frequency_penalty;
  row.repetition_penalty = sampling.repetition_penalty;
  row.seed = sampling.seed;
  row.choice = params.choice;
  row.suppress = options_.suppress_ids;
  row.bias = sampling.logit_bias;
  row.allowed = sampling.allowed_ids;
  if (!has_history) return query;
  row.position = length;
  row.history = std::span(slot.tokens).first(length);
  row.num_prompt = static_cast<size_t>(params.num_prompt);
  row.bad_words = sampling.bad_words;
  if (length - row.num_prompt < static_cast<size_t>(sampling.min_tokens))
    row.held_off = params.stop_ids;
  return query;
}

void Rank::SortBursts(const StepPlan& plan) {
  bursts_.clear();
  drafting_.clear();
  for (const PlannedRows& rows : plan.rows)
    if (rows.num_new_drafts > 0) bursts_.push_back(&rows);
  std::stable_sort(bursts_.begin(), bursts_.end(), [](const auto* a, const auto* b) {
    return a->num_new_drafts > b->num_new_drafts;
  });
  for (const PlannedRows* rows : bursts_) drafting_.push_back(rows->slot);
}

// One pass drafts one token for every sequence that wants that many.
void Rank::Draft(const StepPlan& plan) {
  if (bursts_.empty()) return;
  DraftRows draft = states_.PlaceDrafts(plan.draft_position == DraftPosition::kNewest ? 0 : 1);
  for (int pass = 0;; ++pass) {
    const auto count = static_cast<int64_t>(
        std::partition_point(bursts_.begin(), bursts_.end(),
                             [pass](const auto* rows) { return rows->num_new_drafts > pass; }) -
        bursts_.begin());
    if (count == 0) return;
    const RowSet rows{draft.rows.positions.Rows(0, count),
                      draft.rows.key_ends.Rows(0, count),
                      draft.rows.slots.Rows(0, count),
                      draft.rows.chunks.Rows(0, count),
                      Table(PageKind::kFull),
                      Table(PageKind::kSliding),
                      {}};
    const DraftOutput output =
        model_->Draft(draft.tokens.Rows(0, count), draft.hidden.Rows(0, count), rows);
    states_.TakeDrafts(pass, model_->row_sampler().Best(output.logits, options_.suppress_ids));
    draft.hidden = output.hidden;
  }
}

StepNews Rank::Read() {
  if (news_.empty()) Collect();
  StepNews news = std::move(news_.front());
  news_.pop_front();
  return news;
}

void Rank::Collect() {
  const TraceSpan span("wait for the step");
  const Unread step = std::move(unread_.front());
  unread_.pop_front();
  StepNews& news = news_.emplace_back();
  news.number = step.number;
  if (step.rows.empty()) return;
  const std::span<const SlotOutcome> outcomes = states_.Read();
  std::span<RowAnswer> answers;
  if (step.sampler_call != 0) answers = model_->row_sampler().Answers(step.sampler_call);
  for (size_t i = 0; i < step.rows.size(); ++i)
    news.rows.push_back(NewsOf(step, step.rows[i], outcomes[i], answers));
}

RowsNews Rank::NewsOf(const Unread& step, const Unread::Rows& rows, const SlotOutcome& outcome,
                      std::span<RowAnswer> answers) {
  RowsNews news;
  news.tokens.assign(outcome.tokens.begin(), outcome.tokens.begin() + outcome.num_tokens);
  news.num_drafted = rows.rows.num_drafts;
  news.num_accepted = std::max(0, outcome.num_tokens - 1);
  news.not_finite = outcome.not_finite;
  news.exhausted = outcome.exhausted;
  for (int i = 0; i < outcome.num_queries; ++i) {
    const auto query = static_cast<size_t>(rows.rows.first_query + i);
    if (step.has_logprobs[query] == 0) continue;
    std::optional<TokenLogprobs>& logprobs = answers[query].logprobs;
    CHECK(logprobs.has_value(), "query {} was not scored", query);
    (step.is_draw[query] != 0 ? news.logprobs : news.prompt_logprobs)
        .push_back(std::move(*logprobs));
  }
  Slot& slot = slots_.at(static_cast<size_t>(rows.rows.slot));
  if (slot.number != rows.slot_number) return news;  // another sequence has the slot now
  slot.num_unread -= rows.most_tokens;
  slot.tokens.insert(slot.tokens.end(), news.tokens.begin(), news.tokens.end());
  if (news.tokens.empty() && rows.rows.draws && (news.not_finite || news.exhausted))
    slot.tokens.push_back(0);  // as SlotStates
  return news;
}

}  // namespace lapidary
