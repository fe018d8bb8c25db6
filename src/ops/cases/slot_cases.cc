// SlotStates over several steps: sequences begin, their rows are placed, drafts are accepted as far
// as they were drawn, some logits are not finite, some masks leave nothing, some sequences end. All
// numbers must be the definition's.
#include <algorithm>
#include <numeric>

#include "ops/batch.h"
#include "ops/cases/op_case.h"

namespace lapidary {
namespace {

constexpr int kSlots = 33, kSteps = 8, kDrafts = 4;
constexpr int64_t kHiddenSize = 96, kAllSlots = int64_t{kSteps} * kSlots;
constexpr int kOutcome = 4 + kMaxDrafts + 1;

class SlotCase : public OpCase {
 public:
  explicit SlotCase(double simulated) : simulated_(simulated) {}

  std::string Name() const override { return fmt::format("slots/accept_length_{}", simulated_); }

  void Make(TensorSet& set) override {
    std::mt19937_64& rng = set.rng();
    drafts_.assign(kSlots, std::vector<int32_t>(kDrafts, 0));
    for (Step& step : steps_) {
      step = {};
      const bool first = &step == steps_.data();
      std::vector<int32_t> draws;
      for (int32_t slot = 0; slot < kSlots; ++slot) {
        const bool begins = first || rng() % 8 == 0;
        if (begins) AddBegin(step, slot, rng);
        AddRows(step, slot, begins, draws, rng);
      }
      step.drafting.resize(kSlots);
      std::iota(step.drafting.begin(), step.drafting.end(), 0);
      std::shuffle(step.drafting.begin(), step.drafting.end(), rng);
      step.drafting.resize(kSlots - 5);
      step.draws = set.Add(DType::kI32, static_cast<int64_t>(draws.size() / 2), 2, draws.data());
      step.hidden_states = AddHidden(set, static_cast<int64_t>(draws.size() / 2));
      for (int pass = 0; pass < kDrafts; ++pass) AddBest(step, pass, set);
      const std::vector<int32_t> nothing(step.offsets.size(), -7);
      step.slots_of_rows = set.Ids(step.row_slots);
      step.places = set.Ids(step.offsets);
      step.tokens = set.Ids(nothing);
      step.positions = set.Ids(nothing);
      step.key_ends = set.Ids(nothing);
    }
    outcomes_ = set.Output(DType::kI32, kAllSlots, kOutcome);
    draft_ids_ = set.Output(DType::kI32, int64_t{kSteps} * 3, kSlots);
    draft_hidden_ = set.Output(DType::kF32, kAllSlots, kHiddenSize);
  }

  void Run(Ops& ops, const TensorSet& set) override {
    const auto states = ops.MakeSlotStates(kSlots, kHiddenSize);
    states->SimulateAcceptLength(simulated_);
    std::vector<int32_t> outcomes, ids(Index(kAllSlots * 3), 0);
    std::vector<float> hidden(Index(kAllSlots * kHiddenSize), 0.0f);
    for (size_t i = 0; i < steps_.size(); ++i) {
      const Step& step = steps_[i];
      states->Begin({step.begins, step.rows, step.drafting});
      RowSet rows;
      rows.positions = set[step.positions];
      rows.key_ends = set[step.key_ends];
      rows.slots = set[step.slots_of_rows];
      states->PlaceRows(set[step.tokens], rows, set[step.places]);
      states->Accept(set[step.draws], set[step.hidden_states]);
      const DraftRows draft = states->PlaceDrafts(static_cast<int>(i % 2));
      const auto read = [&](void* to, const Tensor& from) {
        set.device().CopyOut(to, from.data, from.num_elements() * 4);
      };
      read(&ids[(i * 3 + 0) * kSlots], draft.tokens);
      read(&ids[(i * 3 + 1) * kSlots], draft.rows.positions);
      read(&ids[(i * 3 + 2) * kSlots], draft.rows.key_ends);
      read(&hidden[i * Index(kSlots * kHiddenSize)], draft.hidden);
      for (int pass = 0; pass < kDrafts; ++pass)
        states->TakeDrafts(pass, set[step.best[static_cast<size_t>(pass)]]);
      // As an engine that is a step behind.
      if (i > 0) Store(states->Read(), outcomes);
    }
    Store(states->Read(), outcomes);
    const auto store = [&](int tensor, const void* from) {
      Tensor to = set[tensor];
      set.device().CopyIn(to.data, from, to.num_elements() * 4);
    };
    store(outcomes_, outcomes.data());
    store(draft_ids_, ids.data());
    store(draft_hidden_, hidden.data());
  }

  std::vector<CaseOutput> Outputs() const override {
    std::vector<CaseOutput> outputs = {{outcomes_}, {draft_ids_}, {draft_hidden_}};
    for (const Step& step : steps_)
      for (const int tensor : {step.tokens, step.positions, step.key_ends})
        outputs.push_back({tensor});
    return outputs;
  }
  Tolerance tolerance() const override { return {0, 0}; }
  int64_t Bytes() const override { return kAllSlots * kHiddenSize * 8; }

 private:
  struct Step {
    std::vector<SlotBegin> begins;
    std::vector<SlotRows> rows;
    std::vector<int32_t> drafting, row_slots, offsets;
    int draws = 0, hidden_states = 0, slots_of_rows = 0, places = 0;
    int tokens = 0, positions = 0, key_ends = 0;
    std::array<int, kDrafts> best{};
  };

  static void AddBegin(Step& step, int32_t slot, std::mt19937_64& rng) {
    SlotBegin begin;
    begin.slot = slot;
    begin.length = static_cast<int32_t>(2 + rng() % 900);
    begin.newest = static_cast<int32_t>(rng() % 1000);
    begin.limit = begin.length + static_cast<int32_t>(rng() % 12);
    begin.seed = rng();
    begin.choice = static_cast<uint32_t>(rng() % 8);
    step.begins.push_back(begin);
  }

  // Of a prompt, some of whose rows are only scored, or a newest token and its drafts.
  void AddRows(Step& step, int32_t slot, bool begins, std::vector<int32_t>& draws,
               std::mt19937_64& rng) {
    SlotRows rows;
    rows.slot = slot;
    rows.first_query = rows.first_output = static_cast<int32_t>(draws.size() / 2);
    rows.num_drafts = begins ? 0 : static_cast<int32_t>(rng() % (kDrafts + 1));
    rows.num_queries = begins ? static_cast<int32_t>(rng() % 4) : rows.num_drafts + 1;
    rows.draws = rows.num_queries > 0 && (!begins || rng() % 4 > 0);
    for (int32_t i = 0; i < rows.num_queries; ++i) {
      const bool is_right = i < rows.num_drafts && rng() % 10 < 7;
      draws.push_back(is_right         ? drafts_[Index(slot)][Index(i)]
                      : rng() % 9 == 0 ? -1
                                       : static_cast<int32_t>(rng() % 1000));
      draws.push_back(rng() % 16 > 0);
      step.row_slots.push_back(slot);
      step.offsets.push_back(begins ? -1 : i);
    }
    step.rows.push_back(rows);
  }

  static int AddHidden(TensorSet& set, int64_t rows) {
    std::vector<float> values(Index(rows * kHiddenSize));
    for (float& x : values) x = static_cast<float>(set.rng()() % 4096) * 0.25f - 500;
    return set.Add(DType::kF32, rows, kHiddenSize, values.data());
  }

  // Bursts get shorter: of the last pass only the first sequences.
  void AddBest(Step& step, int pass, TensorSet& set) {
    const size_t count = step.drafting.size() - static_cast<size_t>(pass) * 3;
    std::vector<int32_t> best;
    for (size_t i = 0; i < count; ++i) {
      const bool finite = set.rng()() % 16 > 0;
      best.push_back(finite ? static_cast<int32_t>(set.rng()() % 1000) : -1);
      best.push_back(finite);
      drafts_[Index(step.drafting[i])][static_cast<size_t>(pass)] = std::max(best[2 * i], 0);
    }
    step.best[static_cast<size_t>(pass)] =
        set.Add(DType::kI32, static_cast<int64_t>(count), 2, best.data());
  }

  static void Store(std::span<const SlotOutcome> outcomes, std::vector<int32_t>& to) {
    for (const SlotOutcome& outcome : outcomes) {
      to.insert(to.end(),
                {outcome.num_tokens, outcome.num_queries, outcome.not_finite, outcome.exhausted});
      to.insert(to.end(), outcome.tokens.begin(), outcome.tokens.end());
    }
  }

  const double simulated_;
  std::array<Step, kSteps> steps_;
  std::vector<std::vector<int32_t>> drafts_;  // of each slot, as Make goes on
  int outcomes_ = 0, draft_ids_ = 0, draft_hidden_ = 0;
};

// Draws whose position a device takes from its slot: what the definition draws at that position.
class SlotDrawCase : public OpCase {
 public:
  std::string Name() const override { return "slots/draw"; }

  void Make(TensorSet& set) override {
    begins_.clear(), queries_.clear();
    for (int32_t slot = 0; slot < kSlots; ++slot) {
      SlotBegin begin;
      begin.slot = slot;
      begin.length = 1 + static_cast<int32_t>(set.rng()() % 3000);
      begin.limit = begin.length + 8;
      begin.seed = set.rng()();
      begin.choice = static_cast<uint32_t>(slot % 3);
      begins_.push_back(begin);
      RowQuery query;
      query.row = slot;
      query.draws = true;
      query.slot = slot;
      query.offset = slot % 4;
      query.sampling.seed = begin.seed;
      query.sampling.choice = begin.choice;
      query.sampling.position =
          static_cast<uint64_t>(begin.length) + static_cast<uint64_t>(query.offset);
      query.sampling.temperature = 1;
      queries_.push_back(query);
    }
    std::vector<float> values(Index(kSlots * kVocabulary));
    std::normal_distribution<float> normal(0, 2);
    for (float& x : values) x = normal(set.rng());
    logits_ = set.Add(DType::kF32, kSlots, kVocabulary, values.data());
    tokens_ = set.Output(DType::kI32, kSlots, 2);
  }

  void Run(Ops& ops, const TensorSet& set) override {
    const auto states = ops.MakeSlotStates(kSlots, 0);
    const auto sampler = ops.MakeRowSampler(kVocabulary, kSlots, states.get());
    states->Begin({begins_, {}, {}});
    std::vector<int32_t> tokens;
    for (const RowAnswer& answer : sampler->Sample(set[logits_], queries_))
      tokens.insert(tokens.end(), {answer.token.value_or(-1), answer.finite});
    set.device().CopyIn(set[tokens_].data, tokens.data(), set[tokens_].num_elements() * 4);
  }

  std::vector<CaseOutput> Outputs() const override { return {{tokens_}}; }
  Tolerance tolerance() const override { return {0, 0}; }
  int64_t Bytes() const override { return int64_t{kSlots} * kVocabulary * 4; }

 private:
  static constexpr int kVocabulary = 3000;

  std::vector<SlotBegin> begins_;
  std::vector<RowQuery> queries_;
  int logits_ = 0, tokens_ = 0;
};

// Batches brought to the device one after the other while the page tables change: rows arrive as
// they are, and of the tables the cells up to each row's own.
class PlaceBatchCase : public OpCase {
 public:
  std::string Name() const override { return "slots/place_batch"; }

  void Make(TensorSet& set) override {
    for (std::vector<int32_t>* table : {&full_, &sliding_})
      table->assign(Index(kSlots * kCells), -1);
    rows_ = set.Output(DType::kI32, kSteps, kSlots * kRowNumbers);
    tables_ = set.Output(DType::kI32, kSteps * 2 * kSlots, kCells);
  }

  void Run(Ops& ops, const TensorSet& set) override {
    std::mt19937_64 rng(11);
    std::vector<int32_t> full = full_, sliding = sliding_, rows, tables;
    BatchBuilder builder(MakeTensor(full.data(), DType::kI32, kSlots, kCells),
                         MakeTensor(sliding.data(), DType::kI32, kSlots, kCells), 128);
    for (int step = 0; step < kSteps; ++step) {
      for (std::vector<int32_t>* table : {&full, &sliding})
        for (int change = 0; change < 40; ++change)
          (*table)[rng() % table->size()] = static_cast<int32_t>(rng() % 900) - 1;
      builder.Clear();
      std::vector<int32_t> positions;
      for (int32_t slot = 0; slot < kSlots; ++slot) {
        const auto token = static_cast<int32_t>(rng() % 5000);
        positions.push_back(static_cast<int32_t>(rng() % (kCells * kPageTokens)));
        builder.AddDecode(slot, positions.back(), std::span(&token, 1));
      }
      const Batch placed = ops.PlaceBatch(builder.Build());
      ops.device().Synchronize();
      for (const Tensor& tensor :
           {placed.tokens, placed.rows.positions, placed.rows.key_ends, placed.rows.slots})
        Append(rows, set.device(), tensor);
      for (const Tensor& table : {placed.rows.full_pages, placed.rows.sliding_pages}) {
        const size_t begin = tables.size();
        Append(tables, set.device(), table);
        for (size_t slot = 0; slot < positions.size(); ++slot)
          for (int64_t cell = positions[slot] / kPageTokens + 1; cell < kCells; ++cell)
            tables[begin + slot * Index(kCells) + Index(cell)] = 0;
      }
    }
    set.device().CopyIn(set[rows_].data, rows.data(), set[rows_].num_elements() * 4);
    set.device().CopyIn(set[tables_].data, tables.data(), set[tables_].num_elements() * 4);
  }

  std::vector<CaseOutput> Outputs() const override { return {{rows_}, {tables_}}; }
  Tolerance tolerance() const override { return {0, 0}; }
  int64_t Bytes() const override { return int64_t{2} * kSteps * kSlots * kCells * 4; }

 private:
  static constexpr int64_t kCells = 24, kRowNumbers = 4;

  static void Append(std::vector<int32_t>& to, Device& device, const Tensor& from) {
    const size_t begin = to.size();
    to.resize(begin + Index(from.num_elements()));
    device.CopyOut(&to[begin], from.data, from.num_elements() * 4);
  }

  std::vector<int32_t> full_, sliding_;
  int rows_ = 0, tables_ = 0;
};

}  // namespace

void AddSlotCases(OpCases& cases) {
  for (const double simulated : {0.0, 1.4, 2.6})
    cases.push_back(std::make_unique<SlotCase>(simulated));
  cases.push_back(std::make_unique<SlotDrawCase>());
  cases.push_back(std::make_unique<PlaceBatchCase>());
}

}  // namespace lapidary
