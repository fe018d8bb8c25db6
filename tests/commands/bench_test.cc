// `lapidary bench` on a model of random weights, and on the shipped one for drafts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "io/json.h"
#include "tests/checkpoints/tiny_checkpoint.h"
#include "tests/commands/running_server.h"
#include "tests/program.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

ProgramResult Bench(std::vector<std::string> args) {
  args.insert(args.begin(), "bench");
  return RunProgram(LAPIDARY_PROGRAM, args);
}

json::object ReadRecord(const fs::path& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  return json::parse(text.str()).as_object();
}

double Number(const json::object& figures, const char* key, const char* statistic = "median") {
  return figures.at(key).at(statistic).to_number<double>();
}

// The device's ceilings and the bound that follows from them: a run cannot be faster.
void ExpectBound(const json::object& record, const json::object& figures) {
  const json::object& ceilings = record.at("engine").at("ceilings").as_object();
  EXPECT_GT(ceilings.at("read_gb_per_s").to_number<double>(), 0);
  EXPECT_GT(ceilings.at("tflop_per_s").to_number<double>(), 0);
  const auto first = [&](const char* key) {
    return figures.at(key).at("runs").at(0).to_number<double>();
  };
  EXPECT_NEAR(first("percent_of_bound"),
              100 * first("output_throughput") / first("bound_output_throughput"), 1e-6);
  EXPECT_GT(Number(figures, "percent_of_bound"), 0);
  EXPECT_LT(Number(figures, "percent_of_bound"), 100);
  EXPECT_LE(Number(figures, "distinct_sampled_tokens"), Number(figures, "sampled_tokens"));
}

// A folder with a config only: weights are random, there is no tokenizer.
class BenchTest : public testing::Test {
 protected:
  BenchTest()
      : model_(folder_.Write("tiny", {{"config.json", TinyConfig("dense")}})),
        record_(folder_.path() / "record.json") {}
  std::vector<std::string> Args(const std::string& bench, std::vector<std::string> more) const {
    std::vector<std::string> args = {bench,           "--model",       model_.string(),
                                     "--load-format", "dummy",         "--skip-tokenizer-init",
                                     "--output-json", record_.string()};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  ScratchFolder folder_;
  fs::path model_, record_;
};

TEST_F(BenchTest, ThroughputLeavesARecord) {
  const ProgramResult result =
      Bench(Args("throughput", {"--input-len", "3-9", "--output-len", "5", "--num-prompts", "7",
                                "--repeats", "2", "--max-num-seqs", "3", "--temperature", "0.5"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("7 requests, 3-9 random ids in, 5 tokens out"));
  EXPECT_THAT(result.out, HasSubstr("of 2 runs"));
  EXPECT_THAT(result.out, HasSubstr("\naccept length "));
  const json::object record = ReadRecord(record_);
  EXPECT_EQ(record.at("bench"), "throughput");
  EXPECT_EQ(record.at("failed"), 0);
  EXPECT_EQ(record.at("repeats"), 2);
  EXPECT_FALSE(record.at("machine").at("cpu").as_string().empty());
  EXPECT_FALSE(record.at("commit").as_string().empty());
  EXPECT_THAT(std::string(record.at("command").as_string()),
              HasSubstr("bench throughput --model " + model_.string()));
  EXPECT_EQ(record.at("engine").at("weights"), "random");
  EXPECT_EQ(record.at("workload").at("ignore_eos"), true);
  const json::object& figures = record.at("figures").as_object();
  // Every answer has all its tokens: 35 of them in the run's time.
  EXPECT_EQ(figures.at("output_throughput").at("runs").as_array().size(), 2u);
  for (size_t run = 0; run < 2; ++run) {
    const auto of = [&](const char* key) {
      return figures.at(key).at("runs").at(run).to_number<double>();
    };
    EXPECT_NEAR(of("output_throughput") * of("duration"), 35, 1e-6);
    EXPECT_NEAR(of("request_throughput") * of("duration"), 7, 1e-6);
  }
  EXPECT_LE(Number(figures, "running", "max"), 3);
  EXPECT_EQ(Number(figures, "accept_length"), 1);
  EXPECT_GT(Number(figures, "median_ttft_ms"), 0);
  EXPECT_FALSE(figures.contains("p99_ttft_ms"));  // of seven
  EXPECT_EQ(Number(figures, "sampled_tokens"), 35);
  ExpectBound(record, figures);
}

TEST_F(BenchTest, LatencyIsOneAtATime) {
  const ProgramResult result =
      Bench(Args("latency", {"--input-len", "4", "--output-len", "6", "--repeats", "1"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json::object record = ReadRecord(record_);
  EXPECT_EQ(record.at("batch_size"), 1);
  const json::object& figures = record.at("figures").as_object();
  EXPECT_EQ(Number(figures, "running", "max"), 1);
  ExpectBound(record, figures);
  // Alone, each answer's time lies within the run's.
  EXPECT_LE(3 * Number(figures, "mean_e2el_ms"), 1e3 * Number(figures, "duration") + 1);
  EXPECT_NEAR(Number(figures, "mean_e2el_ms"),
              Number(figures, "mean_ttft_ms") + 5 * Number(figures, "mean_tpot_ms"), 1e-6);
}

TEST_F(BenchTest, ServeMeasuresARunningServer) {
  RunningServer server({"--model", model_.string(), "--load-format", "dummy",
                        "--skip-tokenizer-init", "--max-model-len", "64"});
  ASSERT_GT(server.port(), 0) << server.program().so_far().err;
  const std::vector<std::string> args = {
      "serve",
      "--base-url",
      "http://127.0.0.1:" + std::to_string(server.port()) + "/v1",
      "--vocab-size",
      "32",
      "--output-len",
      "2-7",
      "--num-prompts",
      "9",
      "--repeats",
      "2",
      "--max-concurrency",
      "3",
      "--request-rate",
      "200",
      "--output-json",
      record_.string()};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), args.begin(), args.end());
    return Bench(more);
  };
  const ProgramResult result = with({"--input-len", "4-20"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("at most 3 open"));
  const json::object record = ReadRecord(record_);
  EXPECT_EQ(record.at("server").at("model"), "tiny");
  const json::array& runs = record.at("runs").as_array();
  ASSERT_EQ(runs.size(), 2u);
  for (size_t run = 0; run < 2; ++run) {
    const json::array& requests = runs[run].at("requests").as_array();
    ASSERT_EQ(requests.size(), 9u);
    int64_t tokens = 0;
    std::vector<std::pair<double, int>> changes;  // of the number of open requests
    for (const json::value& request : requests) {
      const int64_t output = request.at("output_tokens").as_int64();
      const json::array& arrivals = request.at("arrivals_s").as_array();
      tokens += output;
      EXPECT_TRUE(output >= 2 && output <= 7) << output;
      EXPECT_LE(static_cast<int64_t>(arrivals.size()), output);
      changes.emplace_back(request.at("sent_s").as_double(), 1);
      changes.emplace_back(arrivals.back().as_double(), -1);
    }
    std::sort(changes.begin(), changes.end());
    int open = 0;
    for (const auto& [at_s, change] : changes) EXPECT_LE(open += change, 3);
    const auto of = [&](const char* key) {
      return record.at("figures").at(key).at("runs").at(run).to_number<double>();
    };
    EXPECT_NEAR(of("output_throughput") * of("duration"), static_cast<double>(tokens), 1e-6);
    EXPECT_GE(of("duration"), changes.back().first);
  }
  EXPECT_THAT(with({"--input-len", "100"}).err,
              AllOf(HasSubstr("void: 2 of 2 requests failed"), HasSubstr("the server says 400: ")));
  EXPECT_EQ(with({"--endpoint", "/v1/chat/completions"}).exit_code, 2);
  const ProgramResult nobody = Bench({"serve", "--port", "1"});
  EXPECT_EQ(nobody.exit_code, 1);
  EXPECT_THAT(nobody.err, HasSubstr("http://127.0.0.1:1 does not answer"));
}

TEST_F(BenchTest, WhatCannotBe) {
  const auto error_of = [&](std::vector<std::string> more, int exit_code) {
    const ProgramResult result = Bench(Args("latency", std::move(more)));
    EXPECT_EQ(result.exit_code, exit_code);
    return result.err + result.out;
  };
  EXPECT_THAT(error_of({"--input-len", "9-3"}, 2), HasSubstr("is no length"));
  EXPECT_THAT(error_of({"--input-len", "0"}, 2), HasSubstr("is no length"));
  EXPECT_THAT(error_of({"--random-range-ratio", "0"}, 2), HasSubstr("opposite things"));
  EXPECT_THAT(error_of({"--compare-drafts"}, 1), HasSubstr("needs a drafter"));
  EXPECT_THAT(Bench({"latency", "--output-json", "/nonexistent/x"}).err,
              HasSubstr("/nonexistent/x cannot be written"));
  EXPECT_THAT(error_of({"--input-len", "10000000"}, 1), HasSubstr("more than the context"));
  const fs::path prompts = folder_.path() / "prompts.jsonl";
  std::ofstream(prompts) << "{\"prompt_token_ids\":[1,2]}\n{\"prompt\":\"a\"}\n";
  EXPECT_THAT(error_of({"--prompts", prompts.string()}, 1),
              HasSubstr("prompts.jsonl, line 2: without a tokenizer"));
  EXPECT_EQ(Bench({}).exit_code, 2);
  EXPECT_THAT(Bench({"latenzy"}).err, HasSubstr("did you mean latency?"));
}

TEST(BenchDrafts, InTurnWithEqualTokens) {
  ScratchFolder folder;
  const fs::path record_file = folder.path() / "record.json";
  const std::string prompts = LAPIDARY_SOURCE_DIR "/models/pebble/skills.jsonl";
  const ProgramResult result = Bench(
      {"latency", "--compare-drafts", "--prompts", prompts, "--num-prompts", "6", "--output-len",
       "48", "--temperature", "0.7", "--repeats", "2", "--output-json", record_file.string()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("decode speed with drafts / without: "));
  EXPECT_THAT(result.out, HasSubstr("outputs equal: yes"));
  const json::object record = ReadRecord(record_file);
  const json::object& with = record.at("figures").at("with drafts").as_object();
  const json::object& without = record.at("figures").at("without drafts").as_object();
  EXPECT_GT(Number(with, "accept_length"), 2);
  EXPECT_EQ(Number(without, "accept_length", "max"), 1);
  EXPECT_NEAR(
      record.at("decode_speed_ratio").to_number<double>(),
      Number(with, "decode_tok_per_s_a_request") / Number(without, "decode_tok_per_s_a_request"),
      1e-9);
}

TEST(BenchDrafts, AcceptLengthIsSimulated) {
  ScratchFolder folder;
  const fs::path record_file = folder.path() / "record.json";
  const ProgramResult result =
      Bench({"throughput", "--speculative-num-steps", "3", "--speculative-simulate-accept-length",
             "2.5", "--input-len", "5", "--output-len", "100", "--num-prompts", "4", "--repeats",
             "1", "--output-json", record_file.string()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json::object record = ReadRecord(record_file);
  EXPECT_EQ(record.at("engine").at("simulated_accept_length"), 2.5);
  // 160 bursts of 2 or 3 tokens; the last of a request may be cut.
  const json::object& figures = record.at("figures").as_object();
  EXPECT_NEAR(Number(figures, "accept_length"), 2.5, 0.2);
  ExpectBound(record, figures);
}

TEST(BenchKernel, TimesTheOpsThatAreAskedFor) {
  ScratchFolder folder;
  const fs::path record_file = folder.path() / "record.json";
  const ProgramResult result = Bench({"kernel", "--backend", "cpu", "--op", "rms_norm", "--model",
                                      "E2B", "--output-json", record_file.string()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json::object record = ReadRecord(record_file);
  EXPECT_EQ(record.at("bench"), "kernel");
  EXPECT_EQ(record.at("device"), "cpu");
  const double read = record.at("ceilings").at("read_gb_per_s").to_number<double>();
  EXPECT_GT(read, 0);
  const json::array& ops = record.at("ops").as_array();
  ASSERT_EQ(ops.size(), 4u);  // 1 and 80 rows, 80 with drafts, a chunk
  const int rows[] = {1, 80, 320, 4096};
  for (size_t i = 0; i < ops.size(); ++i) {
    const auto of = [&](const char* key) { return ops[i].at(key).to_number<double>(); };
    const std::string name = "rms_norm/E2B/T" + std::to_string(rows[i]) + "xD1536/group1536";
    EXPECT_EQ(std::string(ops[i].at("name").as_string()), name);
    EXPECT_THAT(result.out, HasSubstr("\n" + name + " "));
    // Every row is read and written once, the weights read.
    EXPECT_NEAR(of("gb_per_s") * of("us") * 1e3, (4.0 * rows[i] + 2) * 1536, 1);
    EXPECT_NEAR(of("percent"), 100 * of("gb_per_s") / read, 1e-6);
    EXPECT_EQ(ops[i].at("ceiling"), "read");
  }
}

TEST(BenchKernel, UnknownOpsAndModels) {
  const ProgramResult unknown = Bench({"kernel", "--backend", "cpu", "--op", "nothing"});
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_THAT(unknown.err, HasSubstr("--op nothing: there are attention_full, attention_sliding"));
  EXPECT_EQ(Bench({"kernel", "--model", "7B"}).exit_code, 2);
}

TEST_F(BenchTest, StepsOverBatchAndContext) {
  const std::vector<std::string> args = {
      "step",    "--model", model_.string(), "--backend", "cpu",           "--load-format", "dummy",
      "--batch", "1,3",     "--context",     "5,200",     "--output-json", record_.string()};
  const ProgramResult result = Bench(args);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("\nmodel     tiny\n"), HasSubstr("\ngrowth    ")));
  const json::object record = ReadRecord(record_);
  EXPECT_EQ(record.at("model"), "tiny");
  const json::array& points = record.at("points").as_array();
  ASSERT_EQ(points.size(), 4u);
  const int expected[][2] = {{1, 5}, {3, 5}, {1, 200}, {3, 200}};
  for (size_t i = 0; i < points.size(); ++i) {
    EXPECT_EQ(points[i].at("batch"), expected[i][0]);
    EXPECT_EQ(points[i].at("context"), expected[i][1]);
    const auto of = [&](const char* key) { return points[i].at(key).to_number<double>(); };
    EXPECT_GT(of("bound_ms"), 0);
    EXPECT_NEAR(of("percent_of_bound"), 100 * of("bound_ms") / of("ms"), 1e-9);
  }
  // More keys and more rows are more to read.
  EXPECT_LT(points[0].at("bound_ms").as_double(), points[2].at("bound_ms").as_double());
  EXPECT_LT(points[2].at("bound_ms").as_double(), points[3].at("bound_ms").as_double());
  EXPECT_TRUE(record.at("growth").at("passes").is_bool());
  std::vector<std::string> products = args;
  products.emplace_back("--products");
  EXPECT_THAT(Bench(products).err, HasSubstr("--products needs a GPU"));
  EXPECT_EQ(Bench({"step", "--batch", "0"}).exit_code, 2);
  EXPECT_EQ(Bench({"step", "--context", "1,x"}).exit_code, 2);
}

TEST(BenchHelp, FitsAScreen) {
  for (const char* bench : {"serve", "throughput", "latency", "kernel", "step"}) {
    const ProgramResult help = Bench({bench, "--help"});
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_THAT(help.out, HasSubstr("Example: lapidary bench "));
    EXPECT_LE(std::count(help.out.begin(), help.out.end(), '\n'), 50) << bench;
  }
}

}  // namespace
}  // namespace lapidary
