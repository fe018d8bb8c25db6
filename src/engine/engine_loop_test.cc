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

// A model whose logits are a function of the whole history, read back through the pages: a page
// given to two sequences, or lost, changes the answer.
class FakeModel : public StepRunner {
 public:
  explicit FakeModel(int num_slabs) : window_(SmallLayout().window) {
    const KvLayout layout = SmallLayout();
    full_.assign(static_cast<size_t>(num_slabs * layout.full_pages_per_slab * kPageTokens), -9);
    sliding_.assign(static_cast<size_t>(num_slabs * layout.sliding_pages_per_slab * kPageTokens),
                    -9);
  }

  StepOutput Forward(const Batch& batch) override {
    for (const SequenceRows& rows : batch.sequences)
      for (int i = 0; i < rows.num_rows; ++i) {
        const int position = rows.first_position + i;
        const int32_t token = batch.tokens[static_cast<size_t>(rows.first_row + i)];
        Cell(rows, position) = token;
        SlidingCell(rows, position) = token;
      }
    logits_.clear();
    size_t next = 0;
    for (const SequenceRows& rows : batch.sequences)
      for (int i = 0; i < rows.num_rows; ++i) {
        if (next == batch.output_rows.size() || batch.output_rows[next] != rows.first_row + i)
          continue;
        ++next;
        AddLogits(rows, rows.first_position + i);
      }
    StepOutput output;
    output.logits = MakeTensor(logits_.data(), DType::kF32, static_cast<int64_t>(next), kVocab);
    return output;
  }

 private:
  int32_t& Cell(const SequenceRows& rows, int position) {
    const auto page = static_cast<int32_t>(rows.full_pages[position / kPageTokens]);
    return full_.at(static_cast<size_t>(page * kPageTokens + position % kPageTokens));
  }
  int32_t& SlidingCell(const SequenceRows& rows, int position) {
    const auto page = static_cast<int32_t>(rows.sliding_pages[position / kPageTokens]);
    return sliding_.at(static_cast<size_t>(page * kPageTokens + position % kPageTokens));
  }
  void AddLogits(const SequenceRows& rows, int position) {
    uint64_t state = 1;
    for (int p = 0; p <= position; ++p)
      state = Hash(state + static_cast<uint64_t>(Cell(rows, p) + 10));
    for (int p = std::max(0, position - window_ + 1); p <= position; ++p)
      state = Hash(state + static_cast<uint64_t>(SlidingCell(rows, p) + 10));
    const bool bad = Cell(rows, position) == kPoison;
    for (uint64_t v = 0; v < kVocab; ++v)
      logits_.push_back(bad && v == 5 ? NAN : static_cast<float>(Hash(state + v) >> 40) * 0x1p-22f);
  }

  int window_;
  std::vector<int32_t> full_, sliding_;
  std::vector<float> logits_;
};

LoopOptions Options(int num_slabs) {
  LoopOptions options;
  options.vocab_size = kVocab;
  options.max_model_len = 600;
  options.limits = {8, 128, 4};
  options.layout = SmallLayout();
  options.num_slabs = num_slabs;
  options.end_ids = {kEnd};
  options.suppress_ids = {kPoison};
  return options;
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
  bool Wait(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return num_done_ >= count; });
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

TEST(EngineLoop, AloneEqualsInACrowd) {
  std::vector<Request> requests;
  std::mt19937 rng(3);
  for (uint64_t id = 1; id <= 40; ++id)
    requests.push_back(
        MakeRequest(id, static_cast<int>(1 + rng() % 400), static_cast<int>(1 + rng() % 100)));
  Collector alone, crowd;
  EngineLoop calm(std::make_unique<FakeModel>(200), Options(200));
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_TRUE(calm.Submit(requests[i], alone.Sink()).ok());
    ASSERT_TRUE(alone.Wait(static_cast<int>(i + 1)));
  }
  EngineLoop busy(std::make_unique<FakeModel>(16), Options(16));
  Collector cancelled;
  for (const Request& request : requests) {
    ASSERT_TRUE(busy.Submit(request, crowd.Sink()).ok());
    Request other = request;
    other.id += 1000;
    ASSERT_TRUE(busy.Submit(other, cancelled.Sink()).ok());
    if (rng() % 2 != 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    busy.Cancel(other.id);
  }
  ASSERT_TRUE(crowd.Wait(40));
  for (const Request& request : requests) {
    EXPECT_EQ(alone.At(request.id).tokens, crowd.At(request.id).tokens);
    EXPECT_EQ(alone.At(request.id).finish, crowd.At(request.id).finish);
  }
  EXPECT_TRUE(WaitIdle(busy));
}

TEST(EngineLoop, EndsForTheRightReason) {
  Collector collector;
  EngineLoop loop(std::make_unique<FakeModel>(60), Options(60));
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

TEST(EngineLoop, RefusesByName) {
  LoopOptions options = Options(60);
  options.max_queued_requests = 2;
  options.limits.max_running = 1;
  Collector collector;
  EngineLoop loop(std::make_unique<FakeModel>(60), options);
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
  EXPECT_THROW(EngineLoop(std::make_unique<FakeModel>(4), Options(4)), StartupError);
}

}  // namespace
}  // namespace lapidary
