// Flags that must change no token: sets of them in which every pair of values occurs.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <array>
#include <random>
#include <set>
#include <tuple>

#include "tests/crowd/answers.h"
#include "tests/crowd/model_test.h"
#include "tests/crowd/models.h"
#include "tests/crowd/requests.h"
#include "tests/support/rounds.h"

namespace lapidary {
namespace {

// Number of values of each flag, in the order of OptionsOf.
constexpr int kNumValues[] = {2, 2, 5, 3, 4, 2, 2, 2, 3, 2};
constexpr size_t kNumFlags = std::size(kNumValues);
using FlagSet = std::array<int, kNumFlags>;
using Pair = std::tuple<size_t, int, size_t, int>;  // flag, value, flag, value

constexpr int kFlagsLength = 300;

EngineOptions OptionsOf(const FlagSet& flags, const std::string& name) {
  const int drafts[] = {0, -1, 1, 4, 8}, chunks[] = {64, 128, 192, 256}, running[] = {1, 3, 16};
  EngineOptions options;
  options.max_model_len = kFlagsLength;
  options.overlap = flags[0] == 1;
  options.prefix_cache = flags[1] == 1;
  options.num_draft_tokens = drafts[flags[2]];
  if (flags[3] > 0)
    options.draft_position = flags[3] == 1 ? DraftPosition::kNewest : DraftPosition::kLastKv;
  options.chunk_tokens = chunks[flags[4]];
  options.fast_prefill = flags[5] == 1;
  options.overcommit = flags[6] == 1;
  options.num_threads = 1 + flags[7];
  options.max_running_requests = running[flags[8]];
  options.reserved_output_tokens = flags[9] == 1 ? 1 : 4096;
  options.kv_bytes = KvBytesFor(name, kFlagsLength, kMaxDrafts, 6);
  return options;
}

void ForPairs(const FlagSet& flags, const auto& visit) {
  for (size_t a = 0; a < kNumFlags; ++a)
    for (size_t b = a + 1; b < kNumFlags; ++b) visit(Pair{a, flags[a], b, flags[b]});
}

// Greedy: of 200 random sets, the one with the most pairs that have not occurred.
std::vector<FlagSet> PairwiseSets() {
  std::set<Pair> missing;
  for (size_t a = 0; a < kNumFlags; ++a)
    for (size_t b = a + 1; b < kNumFlags; ++b)
      for (int x = 0; x < kNumValues[a]; ++x)
        for (int y = 0; y < kNumValues[b]; ++y) missing.emplace(a, x, b, y);
  std::mt19937 rng(1);
  std::vector<FlagSet> sets;
  while (!missing.empty()) {
    FlagSet best{};
    int most = -1;
    for (int i = 0; i < 200; ++i) {
      FlagSet flags;
      for (size_t f = 0; f < kNumFlags; ++f)
        flags[f] = static_cast<int>(rng() % static_cast<uint32_t>(kNumValues[f]));
      int count = 0;
      ForPairs(flags, [&](const Pair& pair) { count += missing.contains(pair); });
      if (count > most) best = flags, most = count;
    }
    ForPairs(best, [&](const Pair& pair) { missing.erase(pair); });
    sets.push_back(best);
  }
  return sets;
}

using FlagsTest = ModelTest;

TEST_P(FlagsTest, NoPairOfFlagsChangesAToken) {
  const int num_requests = pebble() ? Rounds(3) : Rounds(8);
  RequestMaker maker(LoadTarget(GetParam())->config, kFlagsLength, 9);
  std::vector<Request> requests;
  std::vector<std::vector<Answer>> alone;
  const auto calm = MakeCalmEngine(GetParam(), kFlagsLength);
  for (int i = 0; i < num_requests; ++i) {
    requests.push_back(maker.Make(static_cast<uint64_t>(i)));
    alone.push_back(Ask(*calm, requests.back()));
  }
  const std::vector<FlagSet> sets = PairwiseSets();
  for (const FlagSet& flags : sets) {
    const auto engine = MakeEngine(GetParam(), OptionsOf(flags, GetParam()));
    Answers answers;
    size_t num_choices = 0;
    for (const Request& request : requests) {
      ASSERT_TRUE(engine->Submit(request, answers.Sink()).ok());
      num_choices += static_cast<size_t>(request.num_choices);
    }
    ASSERT_TRUE(answers.Wait(num_choices));
    for (size_t i = 0; i < requests.size(); ++i)
      for (size_t choice = 0; choice < alone[i].size(); ++choice)
        EXPECT_EQ(Difference(alone[i][choice], answers.At(i, static_cast<int>(choice))), "")
            << "flags " << fmt::format("{}", fmt::join(flags, " ")) << " request " << i;
  }
  const auto count = static_cast<int64_t>(sets.size());
  PrintGoal("G31", count, count, !HasFailure());
}

INSTANTIATE_TEST_SUITE_P(Models, FlagsTest, testing::ValuesIn(kModels),
                         [](const auto& model) { return std::string(model.param); });

}  // namespace
}  // namespace lapidary
