// Drafts change speed only: any number of them, at either position, right or wrong.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/crowd/answers.h"
#include "tests/crowd/faulty_runner.h"
#include "tests/crowd/model_test.h"
#include "tests/crowd/models.h"
#include "tests/crowd/requests.h"
#include "tests/support/rounds.h"

namespace lapidary {
namespace {

constexpr int kMaxLength = 448;

class SpeculationTest : public ModelTest {
 protected:
  // Prompts and answers that end at page and window borders and beside them, answers shorter than
  // a burst, greedy and drawn.
  void MakeRequests() {
    const ModelConfig config = LoadTarget(GetParam())->config;
    RequestMaker maker(config, kMaxLength, 31);
    const auto calm = MakeCalmEngine(GetParam(), kMaxLength);
    const int num_requests = pebble() ? Rounds(3) : Rounds(8);
    for (int i = 0; i < num_requests; ++i) {
      const int border = i % 3 == 0 ? config.window : kPageTokens * (1 + i % 2);
      const int end = border + maker.Below(3) - 1;
      const int max_tokens = i % 4 == 3 ? 1 + maker.Below(9) : 1 + maker.Below(end - 1);
      Request request = maker.Plain(static_cast<uint64_t>(i), std::max(1, end - max_tokens),
                                    max_tokens, i % 2 == 0 ? 0.0f : 0.8f);
      if (i % 5 == 0) request.sampling.num_logprobs = 2;
      if (i % 5 == 1) request.sampling.repetition_penalty = 1.3f;
      alone_.push_back(Ask(*calm, request)[0]);
      requests_.push_back(std::move(request));
    }
  }

  template <typename AnyEngine>
  EngineStats Compare(AnyEngine& engine, const std::string& context) {
    Answers answers;
    for (const Request& request : requests_)
      EXPECT_TRUE(engine.Submit(request, answers.Sink()).ok());
    EXPECT_TRUE(answers.Wait(requests_.size()));
    for (size_t i = 0; i < requests_.size(); ++i)
      EXPECT_EQ(Difference(alone_[i], answers.At(i)), "") << "request " << i << " " << context;
    num_compared_ += static_cast<int64_t>(requests_.size());
    EXPECT_TRUE(BecomesIdle(engine));
    return engine.stats();
  }

  static EngineOptions Options(int num_drafts, DraftPosition position) {
    EngineOptions options;
    options.max_model_len = kMaxLength;
    options.max_running_requests = 5;
    options.num_draft_tokens = num_drafts;
    options.draft_position = position;
    return options;
  }

  std::vector<Request> requests_;
  std::vector<Answer> alone_;
  int64_t num_compared_ = 0;
};

TEST_P(SpeculationTest, AnyNumberOfDraftsGivesTheTokensWithout) {
  MakeRequests();
  double accepted = 0, bursts = 0;
  for (const int num_drafts : {1, 2, 3, 4, 8, -8}) {  // negative: at the other position
    const bool newest = num_drafts == 8 || num_drafts % 2 != 0;
    const auto engine = MakeEngine(
        GetParam(),
        Options(std::abs(num_drafts), newest ? DraftPosition::kNewest : DraftPosition::kLastKv));
    const EngineStats stats = Compare(*engine, fmt::format("drafts {}", num_drafts));
    EXPECT_GT(stats.num_bursts, 0);
    accepted += static_cast<double>(stats.accepted_tokens);
    bursts += static_cast<double>(stats.num_bursts);
  }
  fmt::print("{}: {:.2f} tokens a burst\n", GetParam(), 1 + accepted / bursts);
  PrintGoal("G8", num_compared_, num_compared_, !HasFailure());
}

TEST_P(SpeculationTest, BadDraftsHarmNobody) {
  MakeRequests();
  using Drafts = Faults::Drafts;
  for (const Drafts drafts : {Drafts::kNaN, Drafts::kConstant, Drafts::kLastId, Drafts::kRight})
    for (const int num_drafts : {2, 8}) {
      Faults faults;
      faults.drafts = drafts;
      for (size_t i = 0; i < requests_.size(); ++i) {
        std::vector<int32_t>& known = faults.answers[requests_[i].sampling.seed];
        known = requests_[i].prompt;
        known.insert(known.end(), alone_[i].tokens.begin(), alone_[i].tokens.end());
      }
      const FaultyEngine engine = MakeFaultyEngine(
          GetParam(), Options(num_drafts, DraftPosition::kNewest), 200, std::move(faults));
      const EngineStats stats = Compare(
          *engine.loop, fmt::format("drafts {} of {}", static_cast<int>(drafts), num_drafts));
      EXPECT_GT(stats.drafted_tokens, 0);
      // Of the right ones only those behind an answer's end, drafted before it was known, are not.
      if (drafts == Drafts::kRight) {
        EXPECT_GT(stats.accepted_tokens, stats.drafted_tokens * 3 / 4);
      }
    }
  PrintGoal("G8", num_compared_, num_compared_, !HasFailure());
}

INSTANTIATE_TEST_SUITE_P(Models, SpeculationTest, testing::ValuesIn(kModels),
                         [](const auto& model) { return std::string(model.param); });

}  // namespace
}  // namespace lapidary
