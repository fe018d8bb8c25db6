// Not-a-number stays where it is: in memory that was not written it changes no bit, in a request it
// ends that request alone.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include "tests/crowd/answers.h"
#include "tests/crowd/faulty_runner.h"
#include "tests/crowd/model_test.h"
#include "tests/crowd/models.h"
#include "tests/crowd/requests.h"
#include "tests/support/rounds.h"

namespace lapidary {
namespace {

constexpr int kNanLength = 448;

class NanTest : public ModelTest {
 protected:
  EngineOptions Options(int num_drafts) const {
    EngineOptions options;
    options.max_model_len = kNanLength;
    options.max_running_requests = 6;
    options.chunk_tokens = 128;
    options.reserved_output_tokens = 8;
    options.num_draft_tokens = num_drafts;
    options.draft_position = DraftPosition::kNewest;
    return options;
  }
  RequestMaker maker_{LoadTarget(GetParam())->config, kNanLength, 17};
  std::unique_ptr<Engine> calm_ = MakeCalmEngine(GetParam(), kNanLength);
};

TEST_P(NanTest, MemoryThatWasNotWrittenChangesNoBit) {
  const int num_requests = pebble() ? Rounds(3) : Rounds(12);
  std::vector<Request> requests;
  std::vector<Answer> alone;
  for (int i = 0; i < num_requests; ++i) {
    requests.push_back(maker_.Make(static_cast<uint64_t>(i)));
    requests.back().num_choices = 1;  // choices share pages without a prefix cache
    alone.push_back(Ask(*calm_, requests.back())[0]);
  }
  const int slabs = static_cast<int>(KvBytesFor(GetParam(), kNanLength, kMaxDrafts, 6) /
                                     static_cast<uint64_t>(LayoutOf(GetParam()).slab_bytes));
  int64_t steps = 0, poisoned = 0;
  for (const bool cache : {false, true})
    for (const bool overlap : {false, true}) {
      EngineOptions options = Options(overlap ? 5 : 0);
      options.prefix_cache = cache;
      options.overlap = overlap;
      Faults faults;
      faults.poison_fresh = true;
      faults.poison_freed = !cache;
      const FaultyEngine engine = MakeFaultyEngine(GetParam(), options, slabs, faults);
      Answers answers;
      for (const Request& request : requests)
        ASSERT_TRUE(engine.loop->Submit(request, answers.Sink()).ok());
      ASSERT_TRUE(answers.Wait(requests.size()));
      for (size_t i = 0; i < requests.size(); ++i)
        EXPECT_EQ(Difference(alone[i], answers.At(i)), "")
            << i << " cache " << cache << " overlap " << overlap;
      ASSERT_TRUE(BecomesIdle(*engine.loop));
      steps += engine.loop->stats().num_steps;
      poisoned += *engine.num_poisoned;
      EXPECT_EQ(engine.loop->stats().nonfinite_rows, 0);
    }
  EXPECT_GT(poisoned, num_requests);
  fmt::print("{}: {} steps, {} pages filled with NaN\n", GetParam(), steps, poisoned);
  PrintGoal("G14", steps, steps, !HasFailure());
}

// Logits of one row, a full page or a sliding page of one request: it ends with kError where the
// NaN is, the others give what they give alone, and nobody finds its pages afterwards.
TEST_P(NanTest, APlantedOneEndsItsRequestAlone) {
  const int num_others = pebble() ? 1 : 3;
  std::vector<Request> others;
  std::vector<Answer> alone;
  for (int i = 0; i < num_others; ++i) {
    others.push_back(maker_.Make(static_cast<uint64_t>(i)));
    others.back().num_choices = 1;
    alone.push_back(Ask(*calm_, others.back())[0]);
  }
  Request victim = maker_.Plain(100, 150, 60);
  const Answer whole = Ask(*calm_, victim)[0];
  // The same prompt again, under a seed that no fault knows.
  Request again = victim;
  again.id = again.sampling.seed = 200;
  const Answer again_alone = Ask(*calm_, again)[0];
  int num_planted = 0;
  using Plant = Faults::Plant;
  for (const Plant plant : {Plant::kLogits, Plant::kFullPage, Plant::kSlidingPage})
    for (const int drafts : {0, 4})
      for (const int position : {149, 180}) {
        Faults faults;
        faults.plant = plant;
        faults.victim_seed = victim.id;
        faults.position = position;
        const FaultyEngine engine = MakeFaultyEngine(GetParam(), Options(drafts), 200, faults);
        Answers answers;
        ASSERT_TRUE(engine.loop->Submit(victim, answers.Sink()).ok());
        for (const Request& other : others)
          ASSERT_TRUE(engine.loop->Submit(other, answers.Sink()).ok());
        ASSERT_TRUE(answers.Wait(others.size() + 1));
        const auto context = fmt::format("plant {} drafts {} position {}", static_cast<int>(plant),
                                         drafts, position);
        const Answer cut = answers.At(victim.id);
        EXPECT_EQ(cut.finish, FinishReason::kError) << context;
        // The row of position p draws answer token p + 1 - 150. A page is found at the next step.
        const size_t most = static_cast<size_t>(position - 149) +
                            (plant == Plant::kLogits ? 0 : 1 + static_cast<size_t>(drafts));
        EXPECT_LE(cut.tokens.size(), most) << context;
        if (plant == Plant::kLogits) {
          EXPECT_EQ(cut.tokens.size(), most) << context;
        }
        EXPECT_TRUE(std::equal(cut.tokens.begin(), cut.tokens.end(), whole.tokens.begin()))
            << context;
        for (size_t i = 0; i < others.size(); ++i)
          EXPECT_EQ(Difference(alone[i], answers.At(i)), "") << i << " " << context;
        EXPECT_EQ(engine.loop->stats().nonfinite_rows, 1);
        const Answer after = Ask(*engine.loop, again)[0];
        EXPECT_EQ(after.cached_tokens, 0) << context;
        EXPECT_EQ(Difference(again_alone, after), "") << context;
        ++num_planted;
      }
  PrintGoal("G14", num_planted, num_planted, !HasFailure());
}

INSTANTIATE_TEST_SUITE_P(Models, NanTest, testing::ValuesIn(kModels),
                         [](const auto& model) { return std::string(model.param); });

}  // namespace
}  // namespace lapidary
