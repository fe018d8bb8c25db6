// The main of every test program: GoogleTest's flags and --rounds-percent=N.
#include <gmock/gmock.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string_view>

#include "tests/support/rounds.h"

namespace lapidary {
namespace {

int rounds_percent = 100;

bool ReadFlag(std::string_view argument) {
  constexpr std::string_view kName = "--rounds-percent=";
  if (!argument.starts_with(kName)) return false;
  argument.remove_prefix(kName.size());
  const char* end = argument.data() + argument.size();
  const auto [stop, code] = std::from_chars(argument.data(), end, rounds_percent);
  return code == std::errc() && stop == end && 1 <= rounds_percent && rounds_percent <= 100'000;
}

}  // namespace

int Rounds(int normal) {
  return static_cast<int>(std::max<int64_t>(1, int64_t{normal} * rounds_percent / 100));
}

}  // namespace lapidary

int main(int argc, char** argv) {
  ::testing::InitGoogleMock(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (lapidary::ReadFlag(argv[i])) continue;
    fprintf(stderr, "%s: the one flag beside GoogleTest's is --rounds-percent=1..100000\n",
            argv[i]);
    return 2;
  }
  return RUN_ALL_TESTS();
}
