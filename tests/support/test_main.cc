// The main of every test program: GoogleTest's flags, --rounds-percent=N and --tokenizer-dir=DIR.
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

int rounds_percent = 100;
std::string tokenizer_dir;

bool ReadFlag(std::string_view argument) {
  constexpr std::string_view kName = "--rounds-percent=", kDir = "--tokenizer-dir=";
  if (argument.starts_with(kDir)) {
    tokenizer_dir = argument.substr(kDir.size());
    return true;
  }
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

const std::string& TokenizerDir() { return tokenizer_dir; }

}  // namespace lapidary

int main(int argc, char** argv) {
  ::testing::InitGoogleMock(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (lapidary::ReadFlag(argv[i])) continue;
    fprintf(stderr,
            "%s: the flags beside GoogleTest's are --rounds-percent=1..100000 and "
            "--tokenizer-dir=DIR\n",
            argv[i]);
    return 2;
  }
  return RUN_ALL_TESTS();
}
