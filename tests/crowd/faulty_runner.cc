#include "tests/crowd/faulty_runner.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <utility>

#include "engine/engine.h"
#include "engine/scheduler/scheduler.h"
#include "tests/crowd/models.h"

namespace lapidary {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// The tables as the rank has them, and how much of each slot's sequence is computed.
class Mirror {
 public:
  struct Slot {
    uint64_t seed = 0;
    int length = 0, computed = 0;
    std::map<int32_t, int32_t> pages[2];  // cell -> page, by PageKind
  };
  using PageId = std::pair<PageKind, int32_t>;

  // Applies the plan's table changes. fresh: pages that entered a table behind what is computed;
  // left: those that are in no table any more.
  void Apply(const StepPlan& plan, std::set<PageId>& fresh, std::set<PageId>& left) {
    for (const int32_t slot : plan.freed_slots) {
      for (const PageKind kind : {PageKind::kFull, PageKind::kSliding})
        for (const auto& [cell, page] : slots_[slot].pages[static_cast<size_t>(kind)])
          Drop({kind, page}, left);
      slots_.erase(slot);
    }
    for (const SlotStart& start : plan.starts) {
      slots_[start.slot].seed = start.params->sampling.seed;
      slots_[start.slot].length = static_cast<int>(start.tokens.size());
    }
    for (const PlannedRows& rows : plan.rows)
      slots_[rows.slot].computed = rows.decode ? slots_[rows.slot].length - 1 : rows.first_position;
    for (const TableChange& change : plan.table_changes) {
      Slot& slot = slots_[change.slot];
      auto& pages = slot.pages[static_cast<size_t>(change.kind)];
      if (const auto found = pages.find(change.cell); found != pages.end()) {
        Drop({change.kind, found->second}, left);
        pages.erase(found);
      }
      if (change.page < 0) continue;
      pages[change.cell] = change.page;
      const PageId id{change.kind, change.page};
      ++users_[id];
      left.erase(id);
      if (change.cell * kPageTokens >= slot.computed) fresh.insert(id);
    }
  }
  void Took(const StepPlan& plan, const StepNews& news) {
    for (size_t i = 0; i < plan.rows.size(); ++i) {
      const PlannedRows& rows = plan.rows[i];
      Slot& slot = slots_[rows.slot];
      slot.length += static_cast<int>(news.rows[i].tokens.size());
      slot.computed = rows.decode ? slot.length - 1 : rows.first_position + rows.num_rows;
    }
  }
  Slot* Find(int32_t slot) {
    const auto found = slots_.find(slot);
    return found == slots_.end() ? nullptr : &found->second;
  }
  std::map<int32_t, Slot>& slots() { return slots_; }

 private:
  void Drop(PageId id, std::set<PageId>& left) {
    if (--users_[id] == 0) left.insert(id);
  }
  std::map<int32_t, Slot> slots_;
  std::map<PageId, int> users_;
};

class FaultyModel : public Gemma4StepModel {
 public:
  FaultyModel(const std::string& name, bool drafts, const StepModelOptions& options,
              const Faults& faults, Mirror& mirror)
      : Gemma4StepModel(LoadTarget(name), drafts ? LoadDrafter(name) : nullptr, options),
        faults_(faults),
        mirror_(mirror) {}

  StepOutput Forward(const Batch& batch) override {
    pass_ = 0;
    StepOutput output = Gemma4StepModel::Forward(batch);
    if (faults_.plant != Faults::Plant::kLogits) return output;
    for (int64_t i = 0; i < batch.output_rows.rows(); ++i) {
      const Mirror::Slot* slot = mirror_.Find(batch.output.slots.i32()[i]);
      if (slot != nullptr && slot->seed == faults_.victim_seed &&
          batch.output.positions.i32()[i] >= faults_.position)
        output.logits.Rows(i, 1).f32()[7] = kNaN;
    }
    return output;
  }

  DraftOutput Draft(Tensor tokens, Tensor hidden, const RowSet& rows) override {
    DraftOutput output = Gemma4StepModel::Draft(tokens, hidden, rows);
    ++pass_;
    if (faults_.drafts == Faults::Drafts::kOwn) return output;
    for (int64_t i = 0; i < tokens.rows(); ++i) {
      Tensor row = output.logits.Rows(i, 1);
      std::fill(row.f32(), row.f32() + row.cols(),
                faults_.drafts == Faults::Drafts::kNaN ? kNaN : 0.0f);
      if (faults_.drafts == Faults::Drafts::kConstant) row.f32()[3] = 1;
      if (faults_.drafts == Faults::Drafts::kLastId) row.f32()[row.cols() - 1] = 1;
      if (faults_.drafts == Faults::Drafts::kRight) row.f32()[RightId(rows, i)] = 1;
    }
    return output;
  }

 private:
  // The newest token has index key_end; this pass drafts the pass_-th behind it.
  int32_t RightId(const RowSet& rows, int64_t i) const {
    const Mirror::Slot* slot = mirror_.Find(rows.slots.i32()[i]);
    const auto known = faults_.answers.find(slot->seed);
    const auto index = static_cast<size_t>(rows.key_ends.i32()[i] + pass_);
    if (known == faults_.answers.end() || index >= known->second.size()) return 0;
    return known->second[index];
  }
  const Faults& faults_;
  Mirror& mirror_;
  int pass_ = 0;  // of this step's bursts
};

class FaultyRunner : public StepRunner {
 public:
  FaultyRunner(const std::string& name, const StepModelOptions& model, bool drafts,
               const RankOptions& rank, Faults faults,
               std::shared_ptr<std::atomic<int64_t>> num_poisoned)
      : faults_(std::move(faults)), layout_(model.layout), num_poisoned_(std::move(num_poisoned)) {
    auto owned = std::make_unique<FaultyModel>(name, drafts, model, faults_, mirror_);
    model_ = owned.get();
    if (faults_.poison_fresh) model_->arena().Poison();
    rank_ = std::make_unique<Rank>(std::move(owned), rank);
  }

  void Launch(const StepPlan& plan) override {
    plan_ = plan;
    std::set<Mirror::PageId> fresh, left;
    mirror_.Apply(plan, fresh, left);
    // A window that this step still brings into scratch may lie in pages that the plan took away
    // or gave to others: each layer reads it before it writes.
    std::set<Mirror::PageId> windows;
    for (const PlannedRows& rows : plan.rows)
      for (const SlidingPage page : rows.window_pages)
        windows.insert({PageKind::kSliding, static_cast<int32_t>(page)});
    if (faults_.poison_fresh) {
      model_->PoisonWorkspaces();
      for (const auto& id : fresh)
        if (!windows.contains(id)) Poison(id);
    }
    if (faults_.poison_freed)
      for (const auto& id : left)
        if (!windows.contains(id)) Poison(id);
    PlantInPages();
    rank_->Launch(plan);
    if (faults_.poison_freed)
      for (const auto& id : left)
        if (windows.contains(id)) Poison(id);
  }
  StepNews Read() override {
    StepNews news = rank_->Read();
    if (!plan_.rows.empty()) mirror_.Took(plan_, news);
    return news;
  }

 private:
  // The bytes of a page, all its layers.
  std::pair<char*, size_t> Bytes(const Mirror::PageId& id) {
    const bool full = id.first == PageKind::kFull;
    size_t layer = 0;
    while (layout_.layers[layer].offset < 0 || layout_.layers[layer].full != full) ++layer;
    const LayerKv kv = model_->arena().layer(static_cast<int>(layer));
    return {kv.Keys(id.second, 0) - kv.offset, static_cast<size_t>(kv.page_bytes)};
  }
  void Poison(const Mirror::PageId& id) {
    const auto [data, size] = Bytes(id);
    std::memset(data, 0xff, size);
    ++*num_poisoned_;
  }
  void PlantInPages() {
    const bool full = faults_.plant == Faults::Plant::kFullPage;
    if (!full && faults_.plant != Faults::Plant::kSlidingPage) return;
    for (auto& [number, slot] : mirror_.slots()) {
      if (slot.seed != faults_.victim_seed || slot.computed < faults_.position) continue;
      const PageKind kind = full ? PageKind::kFull : PageKind::kSliding;
      const auto& pages = slot.pages[static_cast<size_t>(kind)];
      const auto cell = full ? pages.find(0) : pages.find((slot.computed - 1) / kPageTokens);
      if (cell == pages.end()) continue;
      Poison({kind, cell->second});
    }
  }

  const Faults faults_;
  const KvLayout layout_;
  std::shared_ptr<std::atomic<int64_t>> num_poisoned_;
  Mirror mirror_;
  StepPlan plan_;  // launched
  FaultyModel* model_ = nullptr;
  std::unique_ptr<Rank> rank_;
};

}  // namespace

FaultyEngine MakeFaultyEngine(const std::string& name, const EngineOptions& options, int num_slabs,
                              Faults faults) {
  const ModelConfig config = LoadTarget(name)->config;
  LoopOptions loop;
  loop.vocab_size = config.vocab_size;
  loop.limits.max_running = options.max_running_requests;
  loop.limits.chunk_tokens =
      options.chunk_tokens > 0 ? options.chunk_tokens : DefaultChunkTokens(config, true);
  loop.limits.reserved_output = options.reserved_output_tokens;
  loop.limits.max_drafts = loop.drafts.max_drafts = options.num_draft_tokens;
  loop.limits.max_length = options.max_model_len;
  loop.drafts.adaptive = false;
  loop.drafts.position = options.draft_position;
  loop.layout = LayoutOf(name);
  loop.num_slabs = num_slabs;
  loop.end_ids.assign(config.eos_ids.begin(), config.eos_ids.end());
  loop.prefix_cache = options.prefix_cache;
  loop.overlap = options.overlap;
  StepModelOptions model;
  model.layout = loop.layout;
  model.num_slabs = num_slabs;
  model.max_running = loop.limits.max_running;
  model.limits.max_rows = Scheduler::MaxRows(loop.limits);
  model.limits.max_output_rows = Scheduler::MaxOutputRows(loop.limits);
  model.limits.max_scratch_pages = Scheduler::MaxScratchPages(loop.layout, loop.limits);
  model.num_threads = 1;
  const RankOptions rank{loop.limits.max_running, Scheduler::TableCells(loop.limits), {}};
  auto num_poisoned = std::make_shared<std::atomic<int64_t>>(0);
  auto runner = std::make_unique<FaultyRunner>(name, model, options.num_draft_tokens > 0, rank,
                                               std::move(faults), num_poisoned);
  return {std::make_unique<EngineLoop>(std::move(runner), loop), num_poisoned};
}

}  // namespace lapidary
