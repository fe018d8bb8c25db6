#include "engine/step_log.h"

#include <gtest/gtest.h>

namespace lapidary {
namespace {

TEST(StepLog, ALineAPrefillStepAndOneAnInterval) {
  StepLog log(3);
  StepFacts facts;
  facts.num_running = 2;
  facts.num_new_sequences = 1;
  facts.num_new_tokens = 128;
  facts.num_cached_tokens = 64;
  facts.full_usage = 0.25;
  facts.sliding_usage = 0.5;
  facts.now_us = 1'000'000;
  EXPECT_EQ(log.Line(facts),
            "Prefill batch, #new-seq: 1, #new-token: 128, #cached-token: 64, full token usage: "
            "0.25, swa token usage: 0.50, #running-req: 2, #queue-req: 0, input throughput "
            "(token/s): 0.00");
  facts.now_us = 1'500'000;
  EXPECT_NE(log.Line(facts).find("input throughput (token/s): 256.00"), std::string::npos);
  facts.num_new_tokens = 0;
  facts.full_tokens = 640;
  for (int step = 0; step < 2; ++step) EXPECT_EQ(log.Line(facts), "");
  facts.now_us = 3'000'000;
  facts.generated_tokens = 30;
  facts.num_bursts = 10;
  facts.drafted = 40;
  facts.accepted = 20;
  facts.retractions = 1;
  EXPECT_EQ(log.Line(facts),
            "Decode batch, #running-req: 2, #full token: 640, full token usage: 0.25, swa token "
            "usage: 0.50, accept len: 3.00, accept rate: 0.50, cuda graph: False, gen throughput "
            "(token/s): 15.00, #queue-req: 0, #retracted-req: 1");
  for (int step = 0; step < 2; ++step) EXPECT_EQ(log.Line(facts), "");
  EXPECT_NE(log.Line(facts).find("accept len: 1.00, accept rate: 0.00"), std::string::npos);
  EXPECT_EQ(StepLog(0).Line(facts), "");
}

}  // namespace
}  // namespace lapidary
