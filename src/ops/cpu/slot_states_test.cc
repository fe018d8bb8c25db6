// SlotStates: what is taken of the drawn tokens, case by case.
#include "ops/slot_states.h"

#include <gtest/gtest.h>

#include <vector>

namespace lapidary {
namespace {

class SlotStatesTest : public testing::Test {
 protected:
  // Slot 1 holds a sequence of 5 tokens, the last of which is 40, and drafts 41, 42, 43.
  SlotStatesTest() {
    const SlotBegin begin{1, 5, 40, 100, 9, 0};
    const int32_t drafting = 1;
    states_->Begin({{&begin, 1}, {}, {&drafting, 1}});
    states_->PlaceDrafts(0);
    for (int pass = 0; pass < 3; ++pass) {
      std::vector<int32_t> best = {41 + pass, 1};
      states_->TakeDrafts(pass, View(best));
    }
  }
  static Tensor View(std::vector<int32_t>& draws) {
    return MakeTensor(draws.data(), DType::kI32, static_cast<int64_t>(draws.size() / 2), 2);
  }
  SlotOutcome Accept(std::vector<int32_t> draws, int num_drafts) {
    const SlotRows rows{1, 0, static_cast<int32_t>(draws.size() / 2), 0, num_drafts, true};
    states_->Begin({{}, {&rows, 1}, {}});
    std::vector<float> hidden(draws.size());
    for (size_t i = 0; i < hidden.size(); ++i) hidden[i] = static_cast<float>(i);
    states_->Accept(View(draws), MakeTensor(hidden.data(), DType::kF32, rows.num_queries, 2));
    return states_->Read().front();
  }
  static std::vector<int32_t> Tokens(const SlotOutcome& outcome) {
    return {outcome.tokens.begin(), outcome.tokens.begin() + outcome.num_tokens};
  }
  // Of the newest row: token, position, key end; and the drafter's state.
  std::vector<int32_t> Newest() {
    std::vector<int32_t> token = {0}, position = {0}, end = {0}, slot = {1}, offset = {0};
    const auto one = [](std::vector<int32_t>& v) { return MakeTensor(v.data(), DType::kI32, 1); };
    RowSet rows;
    rows.positions = one(position);
    rows.key_ends = one(end);
    rows.slots = one(slot);
    states_->PlaceRows(one(token), rows, one(offset));
    return {token[0], position[0], end[0]};
  }

  const std::unique_ptr<SlotStates> states_ = MakeCpuSlotStates(3, 2);
};

TEST_F(SlotStatesTest, TakesDraftsAsFarAsTheyWereDrawnAndOneTokenMore) {
  const SlotOutcome outcome = Accept({41, 1, 42, 1, 7, 1, 8, 1}, 3);
  EXPECT_EQ(Tokens(outcome), (std::vector<int32_t>{41, 42, 7}));
  EXPECT_EQ(outcome.num_queries, 3);
  EXPECT_EQ(Newest(), (std::vector<int32_t>{7, 7, 8}));
  const int32_t drafting = 1;
  states_->Begin({{}, {}, {&drafting, 1}});
  const DraftRows draft = states_->PlaceDrafts(1);
  EXPECT_EQ(draft.tokens.i32()[0], 7);
  EXPECT_EQ(draft.rows.positions.i32()[0], 6);
  EXPECT_EQ(draft.rows.key_ends.i32()[0], 7);
  EXPECT_EQ(draft.hidden.f32()[0], 4);  // row 2, which drew the 7
}

TEST_F(SlotStatesTest, TakesAllDraftsAndTheBonus) {
  EXPECT_EQ(Tokens(Accept({41, 1, 42, 1, 43, 1, 8, 1}, 3)), (std::vector<int32_t>{41, 42, 43, 8}));
}

TEST_F(SlotStatesTest, TakesNothingBeyondTheLimit) {
  const SlotBegin begin{1, 5, 40, 7, 9, 0};
  states_->Begin({{&begin, 1}, {}, {}});
  EXPECT_EQ(Accept({41, 1}, 0).num_tokens, 1);
  EXPECT_EQ(Accept({41, 1}, 0).num_tokens, 1);
  const SlotOutcome outcome = Accept({41, 1}, 0);
  EXPECT_EQ(outcome.num_tokens, 0);
  EXPECT_FALSE(outcome.exhausted || outcome.not_finite);
  EXPECT_EQ(Newest(), (std::vector<int32_t>{41, 6, 7}));
}

TEST_F(SlotStatesTest, EndsWithoutATokenOneFurther) {
  for (const bool finite : {false, true}) {
    const std::vector<int32_t> before = Newest();
    const SlotOutcome outcome = Accept({-1, finite}, 0);
    EXPECT_EQ(outcome.num_tokens, 0);
    EXPECT_EQ(outcome.not_finite, !finite);
    EXPECT_EQ(outcome.exhausted, finite);
    EXPECT_EQ(Newest(), (std::vector<int32_t>{0, before[1] + 1, before[2] + 1}));
  }
}

// A row that is not looked at may be anything.
TEST_F(SlotStatesTest, WhatLiesBehindAWrongDraftDoesNotCount) {
  const SlotOutcome outcome = Accept({9, 1, 42, 0}, 1);
  EXPECT_EQ(Tokens(outcome), std::vector<int32_t>{9});
  EXPECT_FALSE(outcome.not_finite);
}

}  // namespace
}  // namespace lapidary
