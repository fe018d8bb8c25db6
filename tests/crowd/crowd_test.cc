// Requests in random company, in a cache that is too small, with everything on: each gives what it
// gives alone.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <utility>

#include "tests/crowd/answers.h"
#include "tests/crowd/model_test.h"
#include "tests/crowd/models.h"
#include "tests/crowd/requests.h"
#include "tests/support/rounds.h"

namespace lapidary {
namespace {

enum class Fate : uint8_t { kRuns, kCancelled, kDeadline };

int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// One crowd of one model.
class Crowd {
 public:
  // Of so many requests; half as many different ones are asked alone.
  Crowd(const std::string& name, int size, int max_model_len, uint32_t seed)
      : name_(name),
        size_(static_cast<uint64_t>(size)),
        max_model_len_(max_model_len),
        seed_(seed),
        maker_(LoadTarget(name)->config, max_model_len, seed) {}

  void Run() {
    const auto calm = MakeCalmEngine(name_, max_model_len_);
    for (uint64_t id = 0; id < size_ / 2; ++id) {
      pool_.push_back(maker_.Make(id));
      alone_.push_back(Ask(*calm, pool_.back()));
    }
    engine_ = MakeEngine(name_, Options());
    Answers answers;
    std::vector<std::pair<size_t, Fate>> members;
    size_t num_choices = 0;
    for (uint64_t id = 0; id < size_; ++id) {
      const size_t index = static_cast<size_t>(maker_.Below(static_cast<int>(pool_.size())));
      members.emplace_back(index, FateOfNext());
      num_choices += static_cast<size_t>(pool_[index].num_choices);
      Send(id, members.back(), answers);
      Disturb(answers);
    }
    while (!cancels_.empty()) CancelOne();
    ASSERT_TRUE(answers.Wait(num_choices)) << answers.num_ended() << " of " << num_choices;
    for (uint64_t id = 0; id < size_; ++id) Compare(id, members[id], answers);
    EXPECT_TRUE(BecomesIdle(*engine_));
    stats_ = engine_->stats();
    EXPECT_EQ(stats_.stalls, 0);
    engine_->FlushCache();
    EXPECT_TRUE(BecomesIdle(*engine_));
  }

  const EngineStats& stats() const { return stats_; }
  int num_cut() const { return num_cut_; }

 private:
  EngineOptions Options() {
    EngineOptions options;
    // Every other crowd has little more than one sequence needs and reserves next to nothing.
    const bool tight = seed_ % 2 == 0;
    const int drafts[] = {-1, 0, 2, 3, 8};
    const int chunks[] = {64, 128, 256};
    options.num_draft_tokens = drafts[maker_.Below(5)];
    options.chunk_tokens = chunks[maker_.Below(3)];
    options.max_running_requests = 2 + maker_.Below(14);
    options.max_model_len = max_model_len_;
    options.reserved_output_tokens = tight ? 1 : 1 + maker_.Below(30);
    options.overcommit = !tight && maker_.OneOf(2);
    options.fast_prefill = !maker_.OneOf(3);
    options.overlap = !maker_.OneOf(4);
    options.num_threads = maker_.OneOf(4) ? 2 : 1;
    options.kv_bytes = KvBytesFor(name_, max_model_len_, kMaxDrafts,
                                  tight ? maker_.Below(3) : 10 + maker_.Below(40));
    if (maker_.OneOf(2)) options.draft_position = DraftPosition::kLastKv;
    return options;
  }

  Fate FateOfNext() {
    const int x = maker_.Below(10);
    return x == 0 ? Fate::kDeadline : x <= 2 ? Fate::kCancelled : Fate::kRuns;
  }

  void Send(uint64_t id, const std::pair<size_t, Fate>& member, Answers& answers) {
    Request request = pool_[member.first];
    request.id = id;
    if (member.second == Fate::kDeadline) request.deadline_ms = NowMs() + maker_.Below(40);
    if (member.second == Fate::kCancelled) cancels_.push_back(id);
    const Status status = engine_->Submit(std::move(request), answers.Sink());
    ASSERT_TRUE(status.ok()) << status.error().message;
  }

  void Disturb(const Answers& answers) {
    if (!cancels_.empty() && maker_.OneOf(4)) CancelOne();
    if (!maker_.OneOf(8)) return;
    // Lets the crowd make some tokens before the next arrives.
    const size_t wanted = answers.num_tokens() + static_cast<size_t>(maker_.Below(60));
    for (int i = 0; i < 20 && answers.num_tokens() < wanted; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  void CancelOne() {
    const size_t which = static_cast<size_t>(maker_.Below(static_cast<int>(cancels_.size())));
    engine_->Cancel(cancels_[which]);
    cancels_.erase(cancels_.begin() + static_cast<std::ptrdiff_t>(which));
  }

  void Compare(uint64_t id, const std::pair<size_t, Fate>& member, const Answers& answers) {
    const std::vector<Answer>& alone = alone_[member.first];
    for (size_t choice = 0; choice < alone.size(); ++choice) {
      const Answer got = answers.At(id, static_cast<int>(choice));
      EXPECT_EQ(Difference(alone[choice], got, member.second != Fate::kRuns), "")
          << name_ << " request " << member.first << " choice " << choice;
      num_cut_ += got.finish == FinishReason::kAbort;
    }
  }

  const std::string name_;
  const uint64_t size_;
  const int max_model_len_;
  const uint32_t seed_;
  RequestMaker maker_;
  std::vector<Request> pool_;
  std::vector<std::vector<Answer>> alone_;
  std::unique_ptr<Engine> engine_;
  std::vector<uint64_t> cancels_;  // still to come
  EngineStats stats_;
  int num_cut_ = 0;
};

using CrowdTest = ModelTest;

TEST_P(CrowdTest, EqualsAlone) {
  const int rounds = Rounds(2);
  const int size = pebble() ? 52 : 112;  // with two rounds 1,000 requests in all
  int64_t preemptions = 0, hits = 0, accepted = 0, drafted = 0;
  int cut = 0;
  for (int round = 0; round < rounds && !HasFailure(); ++round) {
    Crowd crowd(GetParam(), size, 300, static_cast<uint32_t>(FirstRound() + round));
    crowd.Run();
    preemptions += crowd.stats().preemptions;
    hits += crowd.stats().cache_hits;
    accepted += crowd.stats().accepted_tokens;
    drafted += crowd.stats().drafted_tokens;
    cut += crowd.num_cut();
  }
  fmt::print(
      "{}: {} requests, {} choices cut, {} preemptions, {} prompt tokens from the cache, {} of {} "
      "drafts accepted\n",
      GetParam(), rounds * size, cut, preemptions, hits, accepted, drafted);
  EXPECT_GT(cut, 0);
  // pebble's full pages are so small that one crowd in three fills its cache.
  EXPECT_TRUE(preemptions > 0 || (pebble() && rounds < 20));
  EXPECT_GT(hits, 0);
  EXPECT_GT(drafted, 0);
  const int64_t num_requests = int64_t{rounds} * size;
  PrintGoal("G6", num_requests, num_requests, !HasFailure());
}

// One slot: whatever A left in it when it was cut, B does not see.
TEST_P(CrowdTest, TheNextInASlotSeesNothing) {
  const int rounds = Rounds(pebble() ? 100 : 150), num_next = 10;
  RequestMaker maker(LoadTarget(GetParam())->config, 200, 5 + static_cast<uint32_t>(FirstRound()));
  const auto calm = MakeCalmEngine(GetParam(), 200);
  std::vector<Request> next;
  std::vector<Answer> alone;
  for (int i = 0; i < num_next; ++i) {
    Request request = maker.Plain(static_cast<uint64_t>(i), 1 + maker.Below(70), 6);
    if (i % 2 == 0) request.sampling.frequency_penalty = 1.0f;
    request.sampling.num_logprobs = 1;
    next.push_back(request);
    alone.push_back(Ask(*calm, request)[0]);
  }
  EngineOptions options;
  options.max_model_len = 200;
  options.max_running_requests = 1;
  options.num_draft_tokens = 4;
  const auto engine = MakeEngine(GetParam(), options);
  for (int round = 0; round < rounds; ++round) {
    Request first = maker.Plain(1'000'000, 1 + maker.Below(150), 40);
    first.sampling.num_logprobs = 3;
    first.sampling.repetition_penalty = 1.5f;
    first.num_choices = 1 + maker.Below(2);
    Answers cut;
    ASSERT_TRUE(engine->Submit(first, cut.Sink()).ok());
    const auto wanted = static_cast<size_t>(maker.Below(8));
    for (int i = 0; i < 2000 && cut.num_tokens() < wanted; ++i)
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    engine->Cancel(first.id);
    const auto which = static_cast<size_t>(maker.Below(num_next));
    ASSERT_EQ(Difference(alone[which], Ask(*engine, next[which])[0]), "") << round;
    ASSERT_TRUE(cut.Wait(static_cast<size_t>(first.num_choices)));
  }
  PrintGoal("G6", rounds, rounds, !HasFailure());
}

INSTANTIATE_TEST_SUITE_P(Models, CrowdTest, testing::ValuesIn(kModels),
                         [](const auto& model) { return std::string(model.param); });

}  // namespace
}  // namespace lapidary
