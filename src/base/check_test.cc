#include "base/check.h"

#include <gtest/gtest.h>

#include <cstdio>

namespace lapidary {
namespace {

void Tell(const std::string& message) { std::fprintf(stderr, "told: %s\n", message.c_str()); }

TEST(CheckDeathTest, AFailedCheckNamesItsPlaceAndValues) {
  const int pages = 3;
  CHECK(pages == 3, "{}", "not evaluated to a message");
  EXPECT_EXIT(CHECK(pages > 4, "page {} of {}", 4, pages), testing::ExitedWithCode(kExitBug),
              "check failed at check_test.cc:.*: pages > 4: page 4 of 3");
}

TEST(CheckDeathTest, ADeviceThatFailedHasAnExitCodeOfItsOwn) {
  EXPECT_EXIT(DeviceFailed("cudaGraphLaunch: illegal address"),
              testing::ExitedWithCode(kExitDevice),
              "device failed: cudaGraphLaunch: illegal address");
}

TEST(CheckDeathTest, TheHandlerHearsOfItOnce) {
  const auto fail = [] {
    SetCheckFailureHandler([](const std::string& message) {
      Tell(message);
      CHECK(false, "inside the handler");
    });
    DeviceFailed("gone");
  };
  EXPECT_EXIT(fail(), testing::ExitedWithCode(kExitBug),
              "told: device failed: gone\n.*inside the handler");
}

}  // namespace
}  // namespace lapidary
