// What a person does wrong, and what the program says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/program.h"

namespace lapidary {
namespace {

using testing::HasSubstr;

TEST(Usage, UnknownCommandsNameTheNearest) {
  const ProgramResult result = RunProgram(LAPIDARY_PROGRAM, {"serv"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("unknown command serv; did you mean serve?"));
  EXPECT_EQ(RunProgram(LAPIDARY_PROGRAM, {}).exit_code, 2);
}

TEST(Usage, VersionAndHelp) {
  EXPECT_THAT(RunProgram(LAPIDARY_PROGRAM, {"--version"}).out, testing::StartsWith("lapidary "));
  for (const char* command : {"serve", "chat", "generate", "plan", "check", "verify", "eval",
                              "bench", "tokenize", "render", "version"}) {
    const ProgramResult help = RunProgram(LAPIDARY_PROGRAM, {command, "--help"});
    EXPECT_EQ(help.exit_code, 0) << command;
    EXPECT_THAT(help.out, HasSubstr("Example: ")) << command;
    EXPECT_LE(std::count(help.out.begin(), help.out.end(), '\n'), 50) << command;
  }
}

TEST(Usage, HelpAllShowsTheSeldomUsedFlagsToo) {
  const auto help = [](const char* flag) {
    return RunProgram(LAPIDARY_PROGRAM, {"serve", flag}).out;
  };
  EXPECT_THAT(help("--help"), testing::Not(HasSubstr("--num-gpu-blocks-override")));
  EXPECT_THAT(help("--help-all"), HasSubstr("--num-gpu-blocks-override"));
  EXPECT_THAT(help("--help-all"), HasSubstr("Example: "));
}

TEST(Usage, AContextThatCannotBeIsRefusedBeforeTheModelIsRead) {
  const ProgramResult beyond = RunProgram(LAPIDARY_PROGRAM, {"serve", "--max-model-len", "1M"});
  EXPECT_EQ(beyond.exit_code, 1);
  EXPECT_THAT(beyond.err, HasSubstr("--max-model-len 1048576 is more than the model's 32768"));
  const ProgramResult small = RunProgram(
      LAPIDARY_PROGRAM,
      {"serve", "--port", "0", "--max-model-len", "32K", "--kv-cache-memory-bytes", "1MiB"});
  EXPECT_EQ(small.exit_code, 1);
  EXPECT_THAT(small.err, HasSubstr("one request of 32768 tokens does not fit"));
}

TEST(Usage, TokenizeKnowsTheShippedModel) {
  const ProgramResult ids = RunProgram(LAPIDARY_PROGRAM, {"tokenize", "--bos"}, "Hello\n");
  EXPECT_EQ(ids.exit_code, 0) << ids.err;
  EXPECT_EQ(RunProgram(LAPIDARY_PROGRAM, {"tokenize", "--decode"}, ids.out).out,
            "\"<bos>Hello\"\n");
}

}  // namespace
}  // namespace lapidary
