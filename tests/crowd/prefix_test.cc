// The prefix cache: a hit gives the bits of a miss, and as many cached tokens as can be had.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/crowd/answers.h"
#include "tests/crowd/model_test.h"
#include "tests/crowd/models.h"
#include "tests/crowd/requests.h"
#include "tests/support/rounds.h"

namespace lapidary {
namespace {

int WholePages(size_t num_tokens) {
  return static_cast<int>(num_tokens) / kPageTokens * kPageTokens;
}

class PrefixTest : public ModelTest {
 protected:
  static EngineOptions Options(int max_model_len, int chunk_tokens) {
    EngineOptions options;
    options.max_model_len = max_model_len;
    options.chunk_tokens = chunk_tokens;
    options.num_draft_tokens = 2;
    options.max_running_requests = 4;
    return options;
  }
  Request Follow(const std::vector<int32_t>& beginning, int num_more) {
    Request request = maker_.Plain(next_id_++, num_more, 3);
    request.prompt.insert(request.prompt.begin(), beginning.begin(), beginning.end());
    request.sampling.num_logprobs = 2;
    return request;
  }
  RequestMaker maker_{LoadTarget(GetParam())->config, 448, 23};
  uint64_t next_id_ = 1;
};

// Pairs: a prompt that leaves its pages, and one that begins like it, at every border +- 1.
TEST_P(PrefixTest, AHitEqualsAMissAtEveryBorder) {
  const int window = LoadTarget(GetParam())->config.window, chunk = 128;
  std::vector<int> lengths;
  std::vector<int> borders = {kPageTokens, window};
  if (!pebble())
    for (const int border : {2 * kPageTokens, 2 * chunk, window + kPageTokens})
      borders.push_back(border);
  for (const int border : borders)
    for (const int length : {border - 1, border, border + 1}) lengths.push_back(length);
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  const auto calm = MakeCalmEngine(GetParam(), 448);
  const auto engine = MakeEngine(GetParam(), Options(448, chunk));
  int num_pairs = 0;
  const int rounds = Rounds(1);
  for (int round = 0; round < rounds; ++round)
    for (const int length : lengths) {
      const Request first = Follow({}, length);
      EXPECT_EQ(Difference(Ask(*calm, first)[0], Ask(*engine, first)[0]), "") << length;
      for (const int more : {1, kPageTokens - length % kPageTokens, kPageTokens + 1}) {
        Request second = Follow(first.prompt, more);
        const Answer alone = Ask(*calm, second)[0], hit = Ask(*engine, second)[0];
        EXPECT_EQ(Difference(alone, hit), "") << length << " + " << more;
        const size_t shared = std::min(first.prompt.size(), second.prompt.size() - 1);
        EXPECT_EQ(hit.cached_tokens, WholePages(shared)) << length << " + " << more;
        second.salt[31] = static_cast<uint8_t>(1 + num_pairs % 255);
        second.salt[30] = static_cast<uint8_t>(num_pairs / 255);
        const Answer other = Ask(*engine, second)[0];
        EXPECT_EQ(Difference(alone, other), "") << length << " + " << more;
        EXPECT_EQ(other.cached_tokens, 0) << length << " + " << more;
        ++num_pairs;
      }
    }
  PrintGoal("G7", num_pairs, num_pairs, !HasFailure());
}

// Full pages are there, the window at the branch is not: computed again from the last point that
// has both, and kept for the next.
TEST_P(PrefixTest, ABranchWithoutItsWindowStoresIt) {
  const int branch = pebble() ? 384 : 576, max_length = branch + 320;
  EngineOptions options = Options(max_length, 1024);
  options.num_draft_tokens = 0;
  // Too little is to spare while the first request runs: it keeps the window of its end only. Where
  // full pages leave few slabs, the others take one more to keep a window at all.
  const int spare = LayoutOf(GetParam()).full_pages_per_slab > 5 ? 1 : 0;
  options.kv_bytes = KvBytesFor(GetParam(), max_length, 0, spare);
  const auto engine = MakeEngine(GetParam(), options);
  const auto calm = MakeCalmEngine(GetParam(), max_length);
  Request first = Follow({}, branch + 300);
  first.max_tokens = 20;
  EXPECT_EQ(Difference(Ask(*calm, first)[0], Ask(*engine, first)[0]), "");
  const std::vector<int32_t> common(first.prompt.begin(), first.prompt.begin() + branch + 5);
  int cached[3];
  for (int& count : cached) {
    const Request request = Follow(common, 20);
    const Answer hit = Ask(*engine, request)[0];
    EXPECT_EQ(Difference(Ask(*calm, request)[0], hit), "");
    count = hit.cached_tokens;
  }
  EXPECT_LT(cached[0], branch);
  EXPECT_EQ(cached[1], branch);
  EXPECT_EQ(cached[2], branch);
}

// A chat: each turn finds all that was computed for those before it, but an incomplete page.
TEST_P(PrefixTest, AChatFindsItsTurns) {
  const int num_turns = pebble() ? 3 : 6;
  const auto engine = MakeEngine(GetParam(), Options(900, 256));
  const auto calm = MakeCalmEngine(GetParam(), 900);
  std::vector<int32_t> chat = maker_.RandomIds(70), borders = {70};
  size_t computed = 0;
  for (int turn = 0; turn < num_turns; ++turn) {
    Request request = Follow(chat, 5 + maker_.Below(40));
    request.turn_borders = borders;
    request.max_tokens = 40;
    const Answer answer = Ask(*engine, request)[0];
    EXPECT_EQ(Difference(Ask(*calm, request)[0], answer), "") << turn;
    EXPECT_EQ(answer.cached_tokens, WholePages(computed)) << turn;
    chat = request.prompt;
    chat.insert(chat.end(), answer.tokens.begin(), answer.tokens.end());
    computed = chat.size() - 1;  // the newest token is not computed
    borders.push_back(static_cast<int32_t>(chat.size()));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, PrefixTest, testing::ValuesIn(kModels),
                         [](const auto& model) { return std::string(model.param); });

// 10,000 tokens from 1,000 % of the rounds on.
TEST(Prefix, TwentyUsersComputeOneSystemPrompt) {
  const int length = std::min(10'000, Rounds(1'000)), num_users = 20;
  const std::string name = "pebble";
  EngineOptions options;
  options.max_model_len = length + 200;
  options.max_running_requests = num_users;
  options.num_draft_tokens = 0;
  const auto engine = MakeEngine(name, options);
  RequestMaker maker(LoadTarget(name)->config, length, 3);
  const std::vector<int32_t> system = maker.RandomIds(length);
  std::vector<Request> requests;
  for (int user = 0; user < num_users; ++user) {
    Request request = maker.Plain(static_cast<uint64_t>(user), 10 + maker.Below(60), 8);
    request.prompt.insert(request.prompt.begin(), system.begin(), system.end());
    request.turn_borders = {length};
    requests.push_back(request);
  }
  EXPECT_EQ(Ask(*engine, requests[0])[0].cached_tokens, 0);
  Answers answers;
  for (int user = 1; user < num_users; ++user)
    ASSERT_TRUE(engine->Submit(requests[static_cast<size_t>(user)], answers.Sink()).ok());
  ASSERT_TRUE(answers.Wait(num_users - 1));
  for (uint64_t user = 1; user < num_users; ++user)
    EXPECT_EQ(answers.At(user).cached_tokens, WholePages(system.size())) << user;
  fmt::print("{} users, {} cached of a system prompt of {}\n", num_users,
             answers.At(1).cached_tokens, length);
  EXPECT_GT(engine->FlushCache(), 0);
  const Answer miss = Ask(*engine, requests[1])[0];
  EXPECT_EQ(miss.cached_tokens, 0);
  EXPECT_EQ(Difference(miss, answers.At(1)), "");
}

}  // namespace
}  // namespace lapidary
