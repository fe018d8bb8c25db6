// Host work of a decode step: the production loop (plan, parameters, stop ids, commit, delivery)
// with the shape of the 31B's cache, over a backend that returns each row's chosen id at once. The
// sink makes text of the ids and looks for stop strings, as the server does. Time is the engine
// thread's own CPU time between two steps: waiting for the backend's thread does not count.
// Also the prefix cache's look-up of a long prompt.
#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <deque>
#include <future>
#include <mutex>
#include <vector>

#include "engine/engine_loop.h"
#include "kv/prefix_cache.h"
#include "text/stop_matcher.h"
#include "text/tokenizer.h"

namespace lapidary {
namespace {

constexpr const char* kTokenizerDir = "models/pebble";  // from the root of the repository
constexpr int kSteps = 1024;                            // measured
constexpr int kWarmSteps = 64;
constexpr int kMaxLength = 4096;

// 50 sliding layers of window 1024, 10 full ones.
KvLayout BigLayout() {
  std::vector<KvLayerShape> layers;
  layers.reserve(60);
  for (int i = 0; i < 60; ++i)
    layers.push_back(i % 6 == 5 ? KvLayerShape{true, true, 4, 512}
                                : KvLayerShape{false, true, 16, 256});
  return KvLayout::Make(layers, 1024, DType::kBf16);
}

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15u;
  return x ^ (x >> 29);
}

// Chooses an id for each row that draws; never one of the ends.
class NullBackend : public StepRunner {
 public:
  NullBackend(int32_t first_id, int32_t vocab_size) : first_(first_id), vocab_(vocab_size) {}
  void Launch(const StepPlan& plan) override {
    StepNews& news = news_.emplace_back();
    news.number = plan.number;
    news.rows.resize(plan.rows.size());
    for (size_t i = 0; i < plan.rows.size(); ++i)
      if (plan.rows[i].samples)
        news.rows[i].tokens.push_back(first_ +
                                      static_cast<int32_t>(Mix(plan.number * 4096 + i) %
                                                           static_cast<uint64_t>(vocab_ - first_)));
  }
  StepNews Read() override {
    StepNews news = std::move(news_.front());
    news_.pop_front();
    return news;
  }

 private:
  const int32_t first_, vocab_;
  std::deque<StepNews> news_;
};

double ThreadSeconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// One client: text of its ids, stop strings looked for, the text handed to another thread.
class Client {
 public:
  explicit Client(const Tokenizer& tokenizer)
      : detokenizer_(tokenizer), stops_({"\n\nUser:", "###"}) {}
  void Take(const TokenEvent& event) {
    std::string text;
    for (const int32_t id : event.tokens) text += stops_.Push(detokenizer_.Push(id)).text;
    const std::lock_guard lock(mutex_);
    outbox_ = std::move(text);
  }

 private:
  Detokenizer detokenizer_;
  StopMatcher stops_;
  std::mutex mutex_;
  std::string outbox_;
};

LoopOptions Options(int num_requests, int vocab_size) {
  LoopOptions options;
  options.vocab_size = vocab_size;
  options.layout = BigLayout();
  options.limits.max_running = num_requests;
  options.limits.chunk_tokens = 8192;
  options.limits.max_length = kMaxLength;
  const KvFormula formula(options.layout, 0);
  options.num_slabs = static_cast<int32_t>(num_requests * formula.SlabsFor(kMaxLength)) + 1;
  options.end_ids = {1, 106, 50};
  return options;
}

Request MakeRequest(int index, int vocab_size) {
  Request request;
  request.id = static_cast<uint64_t>(index) + 1;
  // Different lengths: page borders do not fall on one step.
  for (int i = 0; i < 200 + index % 64; ++i)
    request.prompt.push_back(static_cast<int32_t>(Mix(static_cast<uint64_t>(index * 1000 + i)) %
                                                  static_cast<uint64_t>(vocab_size)));
  request.max_tokens = kMaxLength - static_cast<int>(request.prompt.size());
  request.sampling.top_k = 64;
  request.sampling.top_p = 0.95f;
  request.sampling.stop_ids = {7, 8};
  return request;
}

// CPU seconds of the engine thread in each of kSteps decode steps with this many requests.
std::vector<double> MeasureSteps(const Tokenizer& tokenizer, int num_requests) {
  const int vocab_size = tokenizer.vocab_size();
  std::vector<std::unique_ptr<Client>> clients;
  clients.reserve(static_cast<size_t>(num_requests));
  for (int i = 0; i < num_requests; ++i) clients.push_back(std::make_unique<Client>(tokenizer));
  std::vector<double> marks;  // the engine thread's; the last request starts last
  std::promise<void> done;
  const auto mark = [&marks, &done] {
    if (marks.size() == kWarmSteps + kSteps + 1) return;
    marks.push_back(ThreadSeconds());
    if (marks.size() == kWarmSteps + kSteps + 1) done.set_value();
  };
  EngineLoop loop(std::make_unique<NullBackend>(300, vocab_size),
                  Options(num_requests, vocab_size));
  for (int i = 0; i < num_requests; ++i) {
    const bool marks_steps = i + 1 == num_requests;
    const Status status = loop.Submit(
        MakeRequest(i, vocab_size),
        [client = clients[static_cast<size_t>(i)].get(), marks_steps, &mark](TokenEvent&& event) {
          if (event.finish != FinishReason::kNone) return;
          client->Take(event);
          if (marks_steps) mark();
        });
    CHECK(status.ok(), "{}", status.error().message);
  }
  done.get_future().wait();
  CHECK(loop.stats().num_running == num_requests, "{} running", loop.stats().num_running);
  std::vector<double> steps;
  for (size_t i = kWarmSteps; i + 1 < marks.size(); ++i) steps.push_back(marks[i + 1] - marks[i]);
  return steps;
}

void BM_HostStep(benchmark::State& state) {
  auto tokenizer = Tokenizer::Load(kTokenizerDir);
  CHECK(tokenizer.ok(), "{}", tokenizer.error().message);
  const auto num_requests = static_cast<int>(state.range(0));
  std::vector<double> steps = MeasureSteps(tokenizer.value(), num_requests);
  size_t next = 0;
  for ([[maybe_unused]] auto _ : state) state.SetIterationTime(steps[next++]);
  std::sort(steps.begin(), steps.end());
  state.counters["median_us"] = steps[steps.size() / 2] * 1e6;
  state.counters["p99_us"] = steps[steps.size() * 99 / 100] * 1e6;
}
BENCHMARK(BM_HostStep)
    ->Arg(8)
    ->Arg(80)
    ->Arg(256)
    ->Arg(1024)
    ->Iterations(kSteps)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

// A prompt of 10,000 tokens that is known to the last page: found, entered and left again.
void BM_PrefixLookUp(benchmark::State& state) {
  constexpr int kCells = 10000 / kPageTokens;
  const KvLayout layout = BigLayout();
  SlabPool pool(layout, 4096);
  PrefixCache cache(layout, pool);
  std::vector<int32_t> tokens;
  tokens.reserve(kCells * kPageTokens);
  for (int i = 0; i < kCells * kPageTokens; ++i)
    tokens.push_back(static_cast<int32_t>(Mix(static_cast<uint64_t>(i)) % 262144));
  const CacheSalt salt{};
  PrefixNode* node = nullptr;
  for (size_t cell = 0; cell < kCells; ++cell) {
    auto full = pool.TakeFromLiveSlab<FullPage>();
    if (!full) full = pool.TakeFromIdleSlab<FullPage>();
    auto sliding = pool.TakeFromLiveSlab<SlidingPage>();
    if (!sliding) sliding = pool.TakeFromIdleSlab<SlidingPage>();
    node = cache.Register(salt, node, std::span(tokens).subspan(cell * kPageTokens, kPageTokens),
                          *full, *sliding, true);
  }
  for ([[maybe_unused]] auto _ : state) {
    PrefixCache::Match match = cache.Find(salt, tokens);
    CHECK(match.num_cells == kCells, "{} cells", match.num_cells);
    const int first_sliding = kCells - 1024 / kPageTokens;
    cache.Enter(match, kCells, first_sliding);
    for (int cell = kCells; cell-- > 0;) {
      PrefixNode* used = match.nodes[static_cast<size_t>(cell)];
      if (cell >= first_sliding) cache.LeaveSliding(used);
      cache.Leave(used);
    }
  }
}
BENCHMARK(BM_PrefixLookUp)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace lapidary

BENCHMARK_MAIN();
