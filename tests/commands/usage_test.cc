// What a person does wrong, and what the program says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

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
    EXPECT_LE(std::count(help.out.begin(), help.out.end(), '\n'), 45) << command;
    std::istringstream lines(help.out);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
  }
}

// The spellings of vLLM, of SGLang and our own that the interface promises: understood, said to
// have no effect, or refused by name.
TEST(Usage, NoPromisedFlagIsUnknown) {
  for (const char* flag : {"--admin-api-key",
                           "--admin-open",
                           "--admission",
                           "--allowed-hosts",
                           "--allowed-local-media-path",
                           "--allowed-media-domains",
                           "--allowed-origins",
                           "--api-key",
                           "--api-key-env",
                           "--api-key-file",
                           "--api-server-count",
                           "--async-scheduling",
                           "--attention-backend",
                           "--backend",
                           "--batch-invariant",
                           "--block-size",
                           "--chat-template",
                           "--chat-template-content-format",
                           "--chunked-prefill-size",
                           "--config",
                           "--context-length",
                           "--cuda-graph-bs",
                           "--cuda-graph-max-bs",
                           "--cudagraph-capture-sizes",
                           "--debug-kv-bounds",
                           "--decode-attention-backend",
                           "--decode-log-interval",
                           "--default-chat-template-kwargs",
                           "--deterministic",
                           "--device",
                           "--disable-cuda-graph",
                           "--disable-custom-all-reduce",
                           "--disable-hybrid-kv-cache-manager",
                           "--disable-hybrid-swa-memory",
                           "--disable-log-stats",
                           "--disable-overlap-schedule",
                           "--disable-radix-cache",
                           "--download-dir",
                           "--dp-size",
                           "--draft-model",
                           "--draft-position",
                           "--drain-timeout",
                           "--dry-run",
                           "--dtype",
                           "--enable-auto-tool-choice",
                           "--enable-cache-report",
                           "--enable-chunked-prefill",
                           "--enable-deterministic-inference",
                           "--enable-expert-parallel",
                           "--enable-flashinfer-allreduce-fusion",
                           "--enable-force-include-usage",
                           "--enable-log-requests",
                           "--enable-metrics",
                           "--enable-multimodal",
                           "--enable-prefix-caching",
                           "--enable-priority-scheduling",
                           "--enforce-eager",
                           "--ep-size",
                           "--generation-config",
                           "--gpu-memory-utilization",
                           "--health-port",
                           "--help",
                           "--host",
                           "--kv-cache-dtype",
                           "--kv-cache-memory-bytes",
                           "--kv-sharing-fast-prefill",
                           "--language-model-only",
                           "--limit-mm-per-prompt",
                           "--load-format",
                           "--log-format",
                           "--log-level",
                           "--log-level-http",
                           "--log-requests",
                           "--log-requests-format",
                           "--log-requests-level",
                           "--log-requests-target",
                           "--long-prefill-token-threshold",
                           "--max-audio-seconds",
                           "--max-body-mib",
                           "--max-cudagraph-capture-size",
                           "--max-logprobs",
                           "--max-model-len",
                           "--max-n",
                           "--max-num-batched-tokens",
                           "--max-num-seqs",
                           "--max-prefill-tokens",
                           "--max-queued-requests",
                           "--max-running-requests",
                           "--max-total-tokens",
                           "--mem-fraction-static",
                           "--metrics-auth",
                           "--metrics-port",
                           "--mm-attention-backend",
                           "--mm-encoder-tp-mode",
                           "--mm-processor-cache-gb",
                           "--mm-processor-kwargs",
                           "--model",
                           "--model-checksum",
                           "--model-path",
                           "--nnodes",
                           "--no-add-bos",
                           "--no-enable-prefix-caching",
                           "--no-kv-fold",
                           "--no-kv-sharing-fast-prefill",
                           "--no-mtp",
                           "--num-gpu-blocks-override",
                           "--page-size",
                           "--pp-size",
                           "--prefill-attention-backend",
                           "--prefix-cache-scope",
                           "--priority-order",
                           "--profile-dir",
                           "--quantization",
                           "--random-seed",
                           "--reasoning-parser",
                           "--reserve-output-tokens",
                           "--revision",
                           "--root-path",
                           "--sampling-defaults",
                           "--schedule-conservativeness",
                           "--schedule-low-priority-values-first",
                           "--schedule-policy",
                           "--scheduling-policy",
                           "--seed",
                           "--served-model-name",
                           "--shutdown-timeout",
                           "--skip-server-warmup",
                           "--skip-tokenizer-init",
                           "--speculative-algorithm",
                           "--speculative-config",
                           "--speculative-draft-model-path",
                           "--speculative-eagle-topk",
                           "--speculative-num-draft-tokens",
                           "--speculative-num-steps",
                           "--sse-keepalive-interval",
                           "--sse-keepalive-style",
                           "--ssl-ca-certs",
                           "--ssl-cert-reqs",
                           "--ssl-certfile",
                           "--ssl-keyfile",
                           "--step-deadline",
                           "--swa-full-tokens-ratio",
                           "--template-strict",
                           "--tensor-parallel-size",
                           "--tokenizer",
                           "--tokenizer-path",
                           "--tool-call-parser",
                           "--tp",
                           "--tp-size",
                           "--trust-remote-code",
                           "--uds",
                           "--uvicorn-access-log-exclude-prefixes",
                           "--uvicorn-log-level",
                           "--watchdog-timeout",
                           "-O",
                           "-O3",
                           "-dp",
                           "-m",
                           "-pp",
                           "-tp"}) {
    const ProgramResult result = RunProgram(LAPIDARY_PROGRAM, {"serve", "--dry-run", flag});
    EXPECT_THAT(result.err, testing::Not(HasSubstr("unknown flag"))) << flag;
    EXPECT_THAT(result.err, testing::Not(HasSubstr("did you mean"))) << flag;
  }
  EXPECT_EQ(RunProgram(LAPIDARY_PROGRAM, {"serve", "--max-body-mib", "5"}).exit_code, 2);
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
