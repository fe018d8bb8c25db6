#include "engine/engine_loop.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <map>
#include <mutex>
#include <random>
#include <thread>

namespace lapidary {
namespace {

constexpr int kVocab = 97;
constexpr int32_t kEnd = 1;
constexpr int32_t kPoison = 13;  // a token whose logits are NaN

KvLayout SmallLayout() {
  return KvLayout::Make({{false, true, 2, 32}, {false, true, 2, 32}, {true, true, 1, 32}}, 100,
                        DType::kF32);
}

uint64_t Hash(uint64_t x) {
  x *= 0x9e3779b97f4a7c15u;
  return (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9u;
}

// A model whose logits are a function of the whole history, read back through the pages and the
// scratch: a page given to two sequences, lost, or read too early changes the answer. Its drafter
// reads the same history and is right about three times in four.
class FakeModel : public StepModel {
 public:
  FakeModel(int num_slabs, bool drafts) : window_(SmallLayout().window), drafts_(drafts) {
    const KvLayout layout = SmallLayout();
    full_.assign(static_cast<size_t>(num_slabs * layout.full_pages_per_slab * kPageTokens), -9);
    sliding_.assign(static_cast<size_t>(num_slabs * layout.sliding_pages_per_slab * kPageTokens),
                    -9);
  }
  int vocab_size() const override { return kVocab; }
  int hidden() const override { return kHidden; }
  int window() const override { return window_; }
  bool has_drafter() const override { return drafts_; }
  RowSampler& row_sampler() override { return *row_sampler_; }
  SlotStates& slot_states() override { return *slot_states_; }

  StepOutput Forward(const Batch& batch) override {
    scratch_.assign(4096, -9);
    for (const WindowCopy& copy : batch.window_copies)
      std::copy_n(&sliding_.at(static_cast<size_t>(copy.from) * kPageTokens), kPageTokens,
                  &scratch_.at(static_cast<size_t>(copy.to) * kPageTokens));
    const RowSet& rows = batch.rows;
    for (int64_t t = 0; t < rows.num_rows(); ++t) {
      const int32_t token = batch.tokens.i32()[t], position = rows.positions.i32()[t];
      *Full(rows, t, position) = token;
      *Sliding(rows, t, position) = token;
      if (rows.chunks.i32()[t] < 0) continue;
      if (int32_t* kept = Paged(sliding_, rows.sliding_pages, rows, t, position)) *kept = token;
    }
    const int64_t num_out = batch.output_rows.rows();
    logits_.clear();
    states_.assign(static_cast<size_t>(num_out * kHidden), 0.0f);
    for (int64_t i = 0; i < num_out; ++i) {
      const int position = batch.output.positions.i32()[i];
      AddLogits(State(batch.output, i, position + 1, {}),
                *Full(batch.output, i, position) == kPoison);
    }
    return {MakeTensor(states_.data(), DType::kF32, num_out, kHidden),
            MakeTensor(logits_.data(), DType::kF32, num_out, kVocab)};
  }

  // A state holds the tokens of the burst so far: their number, then themselves.
  DraftOutput Draft(Tensor tokens, Tensor hidden, const RowSet& rows) override {
    logits_.clear();
    std::vector<float> states;
    for (int64_t i = 0; i < tokens.rows(); ++i) {
      std::vector<float> state(hidden.f32() + i * kHidden, hidden.f32() + (i + 1) * kHidden);
      state.at(static_cast<size_t>(state[0]) + 1) = static_cast<float>(tokens.i32()[i]);
      state[0] += 1;
      std::vector<int32_t> burst;
      for (int j = 1; j <= static_cast<int>(state[0]); ++j)
        burst.push_back(static_cast<int32_t>(state[static_cast<size_t>(j)]));
      const uint64_t hash = State(rows, i, rows.key_ends.i32()[i], burst);
      AddLogits(hash % 4 == 0 ? hash + 1 : hash, false);
      states.insert(states.end(), state.begin(), state.end());
    }
    states_ = states;
    return {MakeTensor(logits_.data(), DType::kF32, tokens.rows(), kVocab),
            MakeTensor(states_.data(), DType::kF32, tokens.rows(), kHidden)};
  }

 private:
  static constexpr int kHidden = 12;
  static int32_t* Paged(std::vector<int32_t>& store, Tensor table, const RowSet& rows, int64_t t,
                        int position) {
    const int32_t page = table.Rows(rows.slots.i32()[t], 1).i32()[position / kPageTokens];
    return page < 0 ? nullptr
                    : &store.at(static_cast<size_t>(page * kPageTokens + position % kPageTokens));
  }
  int32_t* Full(const RowSet& rows, int64_t t, int position) {
    int32_t* cell = Paged(full_, rows.full_pages, rows, t, position);
    CHECK(cell != nullptr, "no full page at {}", position);
    return cell;
  }
  int32_t* Sliding(const RowSet& rows, int64_t t, int position) {
    int32_t* cell = nullptr;
    if (const int32_t chunk = rows.chunks.i32()[t]; chunk >= 0) {
      const ChunkSpan& span = rows.spans[static_cast<size_t>(chunk)];
      const int page = span.scratch_page + position / kPageTokens - span.first_cell;
      cell = &scratch_.at(static_cast<size_t>(page * kPageTokens + position % kPageTokens));
    } else {
      cell = Paged(sliding_, rows.sliding_pages, rows, t, position);
    }
    CHECK(cell != nullptr, "no sliding page at {}", position);
    return cell;
  }
  // Of the keys below `end` and the tokens behind them.
  uint64_t State(const RowSet& rows, int64_t t, int end, const std::vector<int32_t>& behind) {
    uint64_t state = 1;
    const int count = end + static_cast<int>(behind.size());
    const auto at = [&](int p, bool full) {
      if (p >= end) return behind[static_cast<size_t>(p - end)];
      return full ? *Full(rows, t, p) : *Sliding(rows, t, p);
    };
    for (int p = 0; p < count; ++p) state = Hash(state + static_cast<uint64_t>(at(p, true) + 10));
    for (int p = std::max(0, count - window_); p < count; ++p)
      state = Hash(state + static_cast<uint64_t>(at(p, false) + 10));
    return state;
  }
  // One token is likely, the others are there.
  void AddLogits(uint64_t state, bool bad) {
    const uint64_t likely = 14 + Hash(state) % (kVocab - 14);
    for (uint64_t v = 0; v < kVocab; ++v)
      logits_.push_back(bad && v == 5 ? NAN
                                      : static_cast<float>(Hash(state + v) >> 40) * 0x1p-22f +
                                            (v == likely ? 6.0f : 0.0f));
  }

  int window_;
  bool drafts_;
  std::vector<int32_t> full_, sliding_, scratch_;
  std::vector<float> logits_, states_;
  const std::unique_ptr<RowSampler> row_sampler_ = MakeCpuRowSampler(kVocab);
  const std::unique_ptr<SlotStates> slot_states_ = MakeCpuSlotStates(8, kHidden);
};

LoopOptions Options(int num_slabs, int max_drafts = 0) {
  LoopOptions options;
  options.vocab_size = kVocab;
  options.limits.max_running = 8;
  options.limits.chunk_tokens = 128;
  options.limits.reserved_output = 40;
  options.limits.max_drafts = options.drafts.max_drafts = max_drafts;
  options.limits.max_draft_rows = 12;
  options.limits.max_length = 600;
  options.layout = SmallLayout();
  options.num_slabs = num_slabs;
  options.end_ids = {kEnd};
  return options;
}

std::unique_ptr<EngineLoop> MakeLoop(const LoopOptions& options) {
  auto model = std::make_unique<FakeModel>(options.num_slabs, options.limits.max_drafts > 0);
  const RankOptions rank{
      options.limits.max_running, Scheduler::TableCells(options.limits), {kPoison}};
  return std::make_unique<EngineLoop>(std::make_unique<Rank>(std::move(model), rank), options);
}

// Gathers the answers of many requests.
class Collector {
 public:
  TokenSink Sink() {
    return [this](TokenEvent&& event) {
      const std::lock_guard lock(mutex_);
      Answer& answer = answers_[{event.request_id, event.choice}];
      EXPECT_EQ(answer.finish, FinishReason::kNone) << "an event after the last";
      answer.tokens.insert(answer.tokens.end(), event.tokens.begin(), event.tokens.end());
      for (auto& entry : event.prompt_logprobs) answer.prompt_logprobs.push_back(entry);
      answer.finish = event.finish;
      num_done_ += event.finish != FinishReason::kNone;
      changed_.notify_all();
    };
  }
  struct Answer {
    std::vector<int32_t> tokens;
    std::vector<std::optional<TokenLogprobs>> prompt_logprobs;
    FinishReason finish = FinishReason::kNone;
  };
  bool Wait(int count, std::chrono::milliseconds limit = std::chrono::seconds(60)) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, limit, [&] { return num_done_ >= count; });
  }
  Answer At(uint64_t request, int choice = 0) {
    const std::lock_guard lock(mutex_);
    return answers_[{request, choice}];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<uint64_t, int>, Answer> answers_;
  int num_done_ = 0;
};

Request MakeRequest(uint64_t id, int length, int max_tokens) {
  Request request;
  request.id = id;
  std::mt19937 rng(static_cast<uint32_t>(id));
  for (int i = 0; i < length; ++i)
    request.prompt.push_back(static_cast<int32_t>(14 + rng() % (kVocab - 14)));
  request.max_tokens = max_tokens;
  request.sampling.seed = id;
  return request;
}

bool WaitIdle(const EngineLoop& loop) {
  for (int i = 0; i < 2000; ++i) {
    const EngineStats stats = loop.stats();
    if (stats.used_slabs == 0 && stats.num_running == 0 && stats.num_queued == 0) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

// The same requests one by one, without drafts, cache or overlap, and in a crowd with everything on
// in a cache that is too small: the same tokens, drawn ones too.
TEST(EngineLoop, AloneEqualsInACrowdWithEverythingOn) {
  std::vector<Request> requests;
  std::mt19937 rng(3);
  for (uint64_t id = 1; id <= 60; ++id) {
    Request request =
        MakeRequest(id, static_cast<int>(1 + rng() % 400), static_cast<int>(1 + rng() % 100));
    // Every other one begins like the first.
    if (id % 2 == 0)
      for (size_t i = 0; i < std::min<size_t>(request.prompt.size(), 200); ++i)
        request.prompt[i] = static_cast<int32_t>(20 + i % 7);
    if (id % 3 == 0) request.sampling.frequency_penalty = 0.5f;
    if (id % 5 == 0) request.sampling.temperature = 0;
    if (id % 7 == 0) request.num_choices = 3;
    request.sampling.ignore_eos = true;
    requests.push_back(request);
  }
  LoopOptions plain = Options(200);
  plain.prefix_cache = plain.overlap = false;
  Collector alone;
  const auto calm = MakeLoop(plain);
  int answers = 0;
  for (const Request& request : requests) {
    ASSERT_TRUE(calm->Submit(request, alone.Sink()).ok());
    ASSERT_TRUE(alone.Wait(answers += request.num_choices));
  }
  for (const bool overlap : {false, true}) {
    LoopOptions options = Options(14, 5);
    options.overlap = overlap;
    const auto busy = MakeLoop(options);
    Collector crowd, cancelled;
    for (const Request& request : requests) {
      ASSERT_TRUE(busy->Submit(request, crowd.Sink()).ok());
      Request other = request;
      other.id += 1000;
      ASSERT_TRUE(busy->Submit(other, cancelled.Sink()).ok());
      if (rng() % 2 != 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      busy->Cancel(other.id);
    }
    ASSERT_TRUE(crowd.Wait(answers));
    for (const Request& request : requests)
      for (int choice = 0; choice < request.num_choices; ++choice) {
        EXPECT_EQ(alone.At(request.id, choice).tokens, crowd.At(request.id, choice).tokens)
            << request.id << " choice " << choice << " overlap " << overlap;
        EXPECT_EQ(alone.At(request.id, choice).finish, crowd.At(request.id, choice).finish);
      }
    EXPECT_TRUE(WaitIdle(*busy));
    const EngineStats stats = busy->stats();
    EXPECT_GT(stats.accepted_tokens, stats.drafted_tokens / 3);
    EXPECT_LT(stats.accepted_tokens, stats.drafted_tokens);
    EXPECT_GT(stats.cache_hits, 1000);
    EXPECT_GT(stats.preemptions, 0);
    EXPECT_GT(busy->FlushCache(), 0);
    EXPECT_EQ(busy->stats().stalls, 0);
  }
}

TEST(EngineLoop, EndsForTheRightReason) {
  Collector collector;
  const auto owned = MakeLoop(Options(60, 3));
  EngineLoop& loop = *owned;
  Request forced = MakeRequest(1, 10, 20);
  forced.sampling.allowed_ids = {kEnd};
  Request ignoring = forced;
  ignoring.id = 2;
  ignoring.sampling.ignore_eos = true;
  Request held = forced;
  held.id = 3;
  held.sampling.allowed_ids = {kEnd, 20};
  held.sampling.min_tokens = 7;
  held.sampling.logit_bias = {{kEnd, 100.0f}};
  Request context = MakeRequest(4, 590, 100);
  context.sampling.ignore_eos = true;
  Request bad = MakeRequest(5, 10, 20);
  bad.prompt.back() = kPoison;
  Request choices = MakeRequest(6, 70, 12);
  choices.num_choices = 2;
  choices.sampling.ignore_eos = true;
  Request scored = MakeRequest(7, 300, 0);
  scored.sampling.num_prompt_logprobs = 2;
  for (const Request& r : {forced, ignoring, held, context, bad, choices, scored})
    ASSERT_TRUE(loop.Submit(r, collector.Sink()).ok());
  ASSERT_TRUE(collector.Wait(8));
  EXPECT_EQ(collector.At(1).tokens, std::vector<int32_t>{kEnd});
  EXPECT_EQ(collector.At(1).finish, FinishReason::kStop);
  EXPECT_EQ(collector.At(2).tokens, std::vector<int32_t>(20, kEnd));
  EXPECT_EQ(collector.At(2).finish, FinishReason::kLength);
  std::vector<int32_t> seven(7, 20);
  seven.push_back(kEnd);
  EXPECT_EQ(collector.At(3).tokens, seven);
  EXPECT_EQ(collector.At(4).tokens.size(), 10u);
  EXPECT_EQ(collector.At(4).finish, FinishReason::kLength);
  EXPECT_EQ(collector.At(5).finish, FinishReason::kError);
  EXPECT_TRUE(collector.At(5).tokens.empty());
  EXPECT_EQ(collector.At(6, 1).tokens.size(), 12u);
  EXPECT_NE(collector.At(6, 0).tokens, collector.At(6, 1).tokens);
  const auto scores = collector.At(7).prompt_logprobs;
  ASSERT_EQ(scores.size(), 300u);
  EXPECT_FALSE(scores[0].has_value());
  for (size_t i = 1; i < scores.size(); ++i) EXPECT_EQ(scores[i]->token, scored.prompt[i]);
  EXPECT_TRUE(WaitIdle(loop));
}

// A model that takes its time; it beats or it does not.
class SlowModel : public FakeModel {
 public:
  SlowModel(int num_slabs, bool beats) : FakeModel(num_slabs, false), beats_(beats) {}
  StepOutput Forward(const Batch& batch) override {
    for (int i = 0; i < 40; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      if (beats_) last_beat_ms_ = NowMs();
    }
    return FakeModel::Forward(batch);
  }
  int64_t last_beat_ms() const override { return last_beat_ms_; }
  static int64_t NowMs() {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }

 private:
  bool beats_;
  std::atomic<int64_t> last_beat_ms_{0};
};

TEST(EngineLoop, AStepThatStandsStillIsSeen) {
  for (const bool beats : {true, false}) {
    const LoopOptions options = Options(60);
    const RankOptions rank{options.limits.max_running, Scheduler::TableCells(options.limits), {}};
    EngineLoop loop(std::make_unique<Rank>(std::make_unique<SlowModel>(60, beats), rank), options);
    Collector collector;
    ASSERT_TRUE(loop.Submit(MakeRequest(1, 10, 1), collector.Sink()).ok());
    int64_t longest = 0;
    while (!collector.Wait(1, std::chrono::milliseconds(20)))
      longest = std::max(longest, SlowModel::NowMs() - loop.stats().last_progress_ms);
    if (beats)
      EXPECT_LT(longest, 250);
    else
      EXPECT_GE(longest, 300);
  }
}

// The masks leave nothing to say after three tokens, at every place in a page: the step that was
// planned ahead finds its window.
TEST(EngineLoop, EndsWithoutATokenAtAnyLength) {
  Collector collector;
  const auto loop = MakeLoop(Options(60, 3));
  const int count = 64;
  for (int i = 0; i < count; ++i) {
    Request request = MakeRequest(static_cast<uint64_t>(i), 140 + i, 20);
    request.sampling.allowed_ids = {20};
    request.sampling.bad_words = {std::vector<int32_t>(4, 20)};
    ASSERT_TRUE(loop->Submit(request, collector.Sink()).ok());
  }
  ASSERT_TRUE(collector.Wait(count));
  for (uint64_t id = 0; id < count; ++id) {
    EXPECT_EQ(collector.At(id).tokens, std::vector<int32_t>(3, 20));
    EXPECT_EQ(collector.At(id).finish, FinishReason::kStop);
  }
}

TEST(EngineLoop, RefusesByName) {
  LoopOptions options = Options(60);
  options.max_queued_requests = 2;
  options.limits.max_running = 1;
  Collector collector;
  const auto owned = MakeLoop(options);
  EngineLoop& loop = *owned;
  const auto param = [&](const auto& change) {
    Request request = MakeRequest(1, 10, 5);
    change(request);
    const Status status = loop.Submit(request, collector.Sink());
    return status.ok() ? std::string("ok") : status.error().param;
  };
  EXPECT_EQ(param([](Request& r) { r.sampling.temperature = NAN; }), "temperature");
  EXPECT_EQ(param([](Request& r) { r.sampling.top_p = 0; }), "top_p");
  EXPECT_EQ(param([](Request& r) { r.sampling.min_p = NAN; }), "min_p");
  EXPECT_EQ(param([](Request& r) { r.sampling.repetition_penalty = 0; }), "repetition_penalty");
  EXPECT_EQ(param([](Request& r) { r.sampling.logit_bias = {{kVocab, 1.0f}}; }), "logit_bias");
  EXPECT_EQ(param([](Request& r) { r.prompt = {-1}; }), "prompt");
  EXPECT_EQ(param([](Request& r) { r.prompt.clear(); }), "prompt");
  const Status status = loop.Submit(MakeRequest(1, 600, 5), collector.Sink());
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, "context_length_exceeded");
  int refused = 0;
  for (uint64_t id = 1; id <= 12; ++id) {
    Request request = MakeRequest(id, 300, 250);
    request.sampling.ignore_eos = true;
    const Status full = loop.Submit(request, collector.Sink());
    if (full.ok()) continue;
    EXPECT_EQ(full.error().code, "queue_full");
    ++refused;
  }
  EXPECT_GE(refused, 1);
  EXPECT_THROW(MakeLoop(Options(4)), StartupError);
}

}  // namespace
}  // namespace lapidary
