#include "app/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lapidary {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::set<std::string> kKnown = {"--model-path", "--port", "--max-model-len", "--prompt",
                                      "--settings"};

Result<std::vector<std::string>> Prepare(std::vector<std::string> args) {
  args.insert(args.begin(), {"lapidary", "serve"});
  std::vector<char*> argv;
  argv.reserve(args.size() + 1);
  for (std::string& arg : args) argv.push_back(arg.data());
  return PrepareArguments(static_cast<int>(argv.size()), argv.data(), kKnown);
}

std::string ErrorOf(std::vector<std::string> args) {
  const auto result = Prepare(std::move(args));
  return result.ok() ? "" : result.error().message;
}

TEST(Flags, KeepsOwnFlagsAndSaysWhatItIgnores) {
  testing::internal::CaptureStderr();
  const auto result =
      Prepare({"--model-path", "org/name", "--dtype", "bfloat16", "--trust-remote-code",
               "--tp-size", "1", "--attention-backend", "triton", "--port=80"});
  const std::string said = testing::internal::GetCapturedStderr();
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_THAT(result.value(),
              ElementsAre("lapidary", "serve", "--model-path", "org/name", "--port=80"));
  EXPECT_EQ(said, "ignored: --trust-remote-code, --attention-backend triton\n");
}

TEST(Flags, RefusesValuesThatAreNotBuilt) {
  EXPECT_EQ(ErrorOf({"--tp-size", "2"}), "--tp-size 2 is not built yet; 1 is");
  EXPECT_EQ(ErrorOf({"-tp=4"}), "-tp 4 is not built yet; 1 is");
  EXPECT_EQ(ErrorOf({"--dtype", "float16"}),
            "--dtype float16 is not built yet; bfloat16, auto are");
  EXPECT_EQ(ErrorOf({"-pp", "1", "-dp", "1", "-tp", "1"}), "");
}

TEST(Flags, RefusesUnbuiltByName) {
  EXPECT_EQ(ErrorOf({"--quantization", "fp8"}), "--quantization is not built yet");
}

TEST(Flags, PartsBecomeObjects) {
  const auto result = Prepare({"--settings.method", "mtp", "--settings.num_tokens=4"});
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_THAT(result.value(), ElementsAre("lapidary", "serve", "--settings", R"({"method":"mtp"})",
                                          "--settings", R"({"num_tokens":4})"));
  EXPECT_EQ(ErrorOf({"--settings.method"}), "--settings.method needs a value");
}

TEST(Flags, WhatCannotBeSwitchedOffIsRefused) {
  EXPECT_EQ(ErrorOf({"--no-enable-chunked-prefill"}),
            "--no-enable-chunked-prefill is not built yet");
  EXPECT_EQ(ErrorOf({"--kv-cache-dtype", "fp8"}), "--kv-cache-dtype fp8 is not built yet; auto is");
}

TEST(Flags, NamesTheNearestOfAnUnknownFlag) {
  EXPECT_EQ(ErrorOf({"--prot", "80"}), "unknown flag --prot; did you mean --port?");
  EXPECT_EQ(ErrorOf({"--quantisation", "fp8"}),
            "unknown flag --quantisation; did you mean --quantization?");
  EXPECT_EQ(ErrorOf({"--max-cudagraph-capture-sise", "8"}),
            "unknown flag --max-cudagraph-capture-sise; did you mean --max-cudagraph-capture-size "
            "(of vLLM)?");
  EXPECT_EQ(ErrorOf({"--foo"}), "unknown flag --foo; the nearest is --port, --help shows all");
}

TEST(Flags, MissingValue) {
  EXPECT_EQ(ErrorOf({"--tp-size"}), "--tp-size needs a value");
  EXPECT_EQ(ErrorOf({"--attention-backend", "--port", "80"}), "--attention-backend needs a value");
}

TEST(Flags, NegativeNumbersTextAndTheRestAfterTwoDashesPass) {
  const auto result = Prepare({"--max-model-len", "-1", "--prompt", "- item", "--", "--unknown"});
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_THAT(result.value(), ElementsAre("lapidary", "serve", "--max-model-len", "-1", "--prompt",
                                          "- item", "--", "--unknown"));
}

TEST(Flags, ListsAndNegatedSwitchesAreIgnored) {
  testing::internal::CaptureStderr();
  const auto result =
      Prepare({"--cuda-graph-bs", "1", "2", "4", "--no-enable-prefix-caching", "--port", "80"});
  testing::internal::GetCapturedStderr();
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_THAT(result.value(), ElementsAre("lapidary", "serve", "--port", "80"));
  EXPECT_THAT(ErrorOf({"--no-tp-size"}), HasSubstr("unknown flag --no-tp-size"));
}

}  // namespace
}  // namespace lapidary
