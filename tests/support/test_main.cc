// The main of every test program: GoogleTest's flags, --rounds-percent=N, --first-round=N and
// --tokenizer-dir=DIR.
#include <gmock/gmock.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string>
#include <string_view>

#include "tests/support/rounds.h"
#include "tests/support/tokenizer_dir.h"

namespace lapidary {
namespace {

int rounds_percent = 100, first_round = 0;
std::string tokenizer_dir;

bool ReadNumber(std::string_view text, int least, int most, int& value) {
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  const auto [stop, code] = std::from_chars(begin, end, value);
  return code == std::errc() && stop == end && least <= value && value <= most;
}

bool ReadFlag(std::string_view argument) {
  constexpr std::string_view kRounds = "--rounds-percent=", kFirst = "--first-round=",
                             kDir = "--tokenizer-dir=";
  if (argument.starts_with(kDir)) {
    tokenizer_dir = argument.substr(kDir.size());
    return true;
  }
  if (argument.starts_with(kRounds))
    return ReadNumber(argument.substr(kRounds.size()), 1, 100'000, rounds_percent);
  return argument.starts_with(kFirst) &&
         ReadNumber(argument.substr(kFirst.size()), 0, 1'000'000, first_round);
}

}  // namespace

int Rounds(int normal) {
  return static_cast<int>(std::max<int64_t>(1, int64_t{normal} * rounds_percent / 100));
}

int FirstRound() { return first_round; }

const std::string& TokenizerDir() { return tokenizer_dir; }

}  // namespace lapidary

int main(int argc, char** argv) {
  ::testing::InitGoogleMock(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (lapidary::ReadFlag(argv[i])) continue;
    fprintf(stderr,
            "%s: the flags beside GoogleTest's are --rounds-percent=1..100000, "
            "--first-round=0..1000000 and --tokenizer-dir=DIR\n",
            argv[i]);
    return 2;
  }
  return RUN_ALL_TESTS();
}
