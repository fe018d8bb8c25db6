// A test of each of kModels.
#ifndef LAPIDARY_TESTS_CROWD_MODEL_TEST_H_
#define LAPIDARY_TESTS_CROWD_MODEL_TEST_H_

#include <gtest/gtest.h>

#include <string>

#include "tests/crowd/models.h"
#include "tests/support/rounds.h"

namespace lapidary {

// Runs of few rounds, those under sanitizers, leave out pebble: it takes most of the time and runs
// the code that edge runs.
class ModelTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (pebble() && Rounds(100) < 50) GTEST_SKIP() << "few rounds";
  }
  bool pebble() const { return GetParam() == std::string("pebble"); }
};

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_CROWD_MODEL_TEST_H_
