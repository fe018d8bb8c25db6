#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "io/json.h"
#include "tests/commands/running_server.h"
#include "tests/program.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kSum =
    R"({"messages":[{"role":"user","content":"What is 12 + 30?"}],"temperature":0})";

TEST(Serve, AnswersAndStopsOnASignal) {
  const auto start = std::chrono::steady_clock::now();
  RunningServer server({});
  const std::chrono::duration<double> started = std::chrono::steady_clock::now() - start;
  ASSERT_GT(server.port(), 0) << server.program().so_far().err;
  EXPECT_LT(started.count(), 2);  // what a second `make serve` promises
  EXPECT_THAT(server.Post("/v1/chat/completions", kSum), HasSubstr("\"content\":\"42\""));
  const ProgramResult busy =
      RunProgram(LAPIDARY_PROGRAM, {"serve", "--port", std::to_string(server.port())});
  EXPECT_EQ(busy.exit_code, 1);
  EXPECT_THAT(busy.err, HasSubstr("is in use by another program; choose one with --port"));
  server.program().Signal(SIGINT);
  EXPECT_EQ(server.program().Finish().exit_code, 0);
}

// Weights that are cut while a request runs: its client is told, and the process ends by name.
TEST(Serve, WeightsThatAreGoneEndItAfterItsClientsWereTold) {
  const fs::path dir = fs::path(testing::TempDir()) / "serve_test_weights";
  fs::remove_all(dir);
  fs::copy(fs::path(LAPIDARY_SOURCE_DIR) / "models/pebble", dir);
  RunningServer server({"--model", dir.string(), "--no-mtp"});
  ASSERT_GT(server.port(), 0) << server.program().so_far().err;
  std::string stream, whole;
  const auto ask = [&](const char* more, std::string& reply) {
    return std::thread([&server, &reply, more] {
      reply =
          server.Post("/v1/completions", R"({"prompt":"a","ignore_eos":true,"max_tokens":30000)" +
                                             std::string(more) + "}");
    });
  };
  std::thread streamed = ask(R"(,"stream":true)", stream), answered = ask("", whole);
  while (server.Post("/load", "").find("\"server_load\":2") == std::string::npos)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  fs::resize_file(dir / "model.safetensors", 4096);
  streamed.join(), answered.join();
  const ProgramResult result = server.program().Finish();
  EXPECT_EQ(result.exit_code, 71);
  EXPECT_THAT(result.err, AllOf(HasSubstr("the weights file"), HasSubstr("model.safetensors"),
                                HasSubstr("2 requests are told")));
  EXPECT_THAT(stream, AllOf(HasSubstr(" 200 "), HasSubstr("data: {\"error\":{"),
                            HasSubstr("\"code\":\"failing\""), HasSubstr("data: [DONE]")));
  EXPECT_THAT(whole, AllOf(HasSubstr(" 503 "), HasSubstr("\"code\":\"failing\"")));
  fs::remove_all(dir);
}

TEST(Serve, KeysOfAFile) {
  const fs::path file = fs::path(testing::TempDir()) / "serve_test_keys";
  std::ofstream(file) << "one\r\n\ntwo\n";
  RunningServer server({"--api-key-file", file.string(), "--api-key", "three"});
  for (const char* key : {"one", "two", "three"})
    EXPECT_THAT(server.Post("/v1/models", "", std::string("x-api-key: ") + key + "\r\n"),
                HasSubstr(" 200 "));
  EXPECT_THAT(server.Post("/v1/models", "", "x-api-key: \r\n"), HasSubstr(" 401 "));
  std::ofstream(file) << "\n";
  EXPECT_THAT(RunProgram(LAPIDARY_PROGRAM, {"serve", "--api-key-file", file.string()}).err,
              HasSubstr("holds no key"));
  fs::remove(file);
}

json::value BodyOf(const std::string& reply) {
  return json::parse(reply.substr(reply.find("\r\n\r\n") + 4));
}

// The names of the spans in a trace, once each.
std::set<std::string> SpansOf(const fs::path& file) {
  std::ifstream in(file);
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  std::set<std::string> names;
  const json::value trace = json::parse(text);
  for (const json::value& event : trace.at("traceEvents").as_array())
    if (event.at("ph").as_string() == "X") {
      EXPECT_GE(event.at("dur").as_double(), 0);
      names.emplace(event.at("name").as_string());
    }
  return names;
}

TEST(Serve, TracesSteps) {
  const fs::path dir = fs::path(testing::TempDir()) / "serve_test_profiles";
  fs::remove_all(dir);
  RunningServer server({"--profile-dir", dir.string()});
  EXPECT_THAT(server.Post("/stop_profile", "{}"), HasSubstr("No trace runs"));
  EXPECT_THAT(server.Post("/start_profile", R"({"num_steps":"many"})"), HasSubstr("num_steps"));
  EXPECT_THAT(server.Post("/start_profile", R"({"start_step":3})"), HasSubstr("num_steps"));
  EXPECT_THAT(server.Post("/start_profile", R"({"profile_by_stage":true})"), HasSubstr(" 400 "));
  EXPECT_THAT(server.Post("/start_profile", R"({"activities":["MEM"]})"), HasSubstr("activities"));

  // Until it is stopped; nothing is written elsewhere.
  const json::value started = BodyOf(
      server.Post("/start_profile",
                  R"({"output_dir":"/etc/mine","profile_prefix":"../a","activities":["CPU"]})"));
  const fs::path file(std::string(started.at("file").as_string()));
  EXPECT_EQ(file.parent_path(), dir / "mine");
  EXPECT_TRUE(file.filename().string().starts_with("a-")) << file;
  EXPECT_THAT(server.Post("/start_profile", "{}"), HasSubstr("runs already"));
  server.Post("/v1/chat/completions", kSum);
  EXPECT_EQ(BodyOf(server.Post("/stop_profile", "{}")).at("file").as_string(), file.string());
  EXPECT_THAT(SpansOf(file),
              testing::IsSupersetOf({"plan", "launch", "wait for the step", "commit and deliver"}));

  // A number of steps ends by itself.
  const json::value counted = BodyOf(server.Post("/start_profile", R"({"num_steps":"2"})"));
  const fs::path second(std::string(counted.at("file").as_string()));
  server.Post("/v1/chat/completions", kSum);
  for (int i = 0; i < 200 && !fs::exists(second); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_THAT(server.Post("/stop_profile", "{}"), HasSubstr("No trace runs"));
  EXPECT_TRUE(SpansOf(second).contains("launch"));

  // One that is stopped before its last step is over and in nobody's way.
  server.Post("/start_profile", R"({"num_steps":100000})");
  EXPECT_THAT(server.Post("/stop_profile", "{}"), HasSubstr(" 200 "));
  const json::value next = BodyOf(server.Post("/start_profile", R"({"num_steps":1})"));
  const fs::path third(std::string(next.at("file").as_string()));
  for (int i = 0; i < 20 && !fs::exists(third); ++i) {
    server.Post("/v1/chat/completions", kSum);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_TRUE(SpansOf(third).contains("launch"));
  fs::remove_all(dir);
}

TEST(Serve, WithoutATokenizer) {
  RunningServer server({"--skip-tokenizer-init", "--served-model-name", "a", "b"});
  const std::string reply = server.Post(
      "/v1/completions", R"({"model":"b","prompt":[2,17],"max_tokens":3,"temperature":0})");
  const json::value body = BodyOf(reply);
  EXPECT_EQ(body.at("choices").at(0).at("token_ids").as_array().size(),
            body.at("usage").at("completion_tokens").to_number<size_t>());
  EXPECT_THAT(server.Post("/v1/chat/completions", kSum), HasSubstr("--skip-tokenizer-init"));
}

// As vLLM and SGLang users start it; every automatic value is told with its flag.
TEST(Serve, DryRunTellsThePlan) {
  const ProgramResult result = RunProgram(LAPIDARY_PROGRAM, {"serve",
                                                             "--dry-run",
                                                             "--dtype",
                                                             "bfloat16",
                                                             "--trust-remote-code",
                                                             "--tp-size",
                                                             "1",
                                                             "--attention-backend",
                                                             "triton",
                                                             "--random-seed",
                                                             "1",
                                                             "--generation-config",
                                                             "vllm",
                                                             "--default-chat-template-kwargs",
                                                             R"({"enable_thinking":true})",
                                                             "--max-model-len",
                                                             "16K",
                                                             "--log-level",
                                                             "WARNING",
                                                             "--tool-call-parser",
                                                             "gemma4"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const char* text :
       {"ignored: --trust-remote-code, --attention-backend triton\n", "context 16384",
        "sampling defaults 1 / 0 / 1 ", "seed from 1 ", "thinking on ", "[--max-model-len]",
        "[--kv-cache-memory-bytes]", "[--max-num-seqs]", "[--chunked-prefill-size]"})
    EXPECT_THAT(result.err, HasSubstr(text));
}

// What the engine does, in the words of whoever starts it.
TEST(Serve, EngineFlagsOfBothSpellings) {
  const auto said = [](std::vector<std::string> args) {
    args.insert(args.begin(), {"serve", "--dry-run"});
    const ProgramResult result = RunProgram(LAPIDARY_PROGRAM, args);
    return std::to_string(result.exit_code) + result.err;
  };
  const std::string plain = said({});
  for (const char* text :
       {"prefix cache on  [--no-enable-prefix-caching]", "overlap on  [--disable-overlap-schedule]",
        "admission reserve 4096 output  [--admission]", "order fcfs  "})
    EXPECT_THAT(plain, HasSubstr(text));
  EXPECT_THAT(plain, Not(HasSubstr("--swa-full-tokens-ratio")));
  EXPECT_THAT(said({"--disable-radix-cache", "--disable-overlap-schedule"}),
              AllOf(HasSubstr("prefix cache off"), HasSubstr("overlap off")));
  EXPECT_THAT(said({"--no-enable-prefix-caching", "--no-async-scheduling", "--debug-kv-bounds"}),
              AllOf(HasSubstr("prefix cache off"), HasSubstr("overlap off"),
                    HasSubstr("[--debug-kv-bounds]")));
  EXPECT_THAT(said({"--enable-prefix-caching", "--async-scheduling", "--admission", "overcommit",
                    "--reserve-output-tokens", "7"}),
              AllOf(HasSubstr("prefix cache on"), HasSubstr("admission overcommit")));
  EXPECT_THAT(said({"--admission", "reserve", "--reserve-output-tokens", "7"}),
              HasSubstr("admission reserve 7 output"));
  for (const std::vector<std::string>& wrong : {std::vector<std::string>{"--admission", "never"},
                                                {"--swa-full-tokens-ratio", "1.5"},
                                                {"--decode-log-interval", "0"},
                                                {"--scheduling-policy", "lpm"},
                                                {"--schedule-policy", "random"},
                                                {"--draft-position", "x"},
                                                {"--speculative-algorithm", "EAGLE3"}})
    EXPECT_THAT(said(wrong), AllOf(testing::StartsWith("2"), HasSubstr(wrong[0])));
}

TEST(Serve, LogsStepsUnlessTold) {
  const auto log = [](const std::vector<std::string>& args) {
    RunningServer server(args);
    EXPECT_THAT(server.Post("/v1/chat/completions", kSum), HasSubstr(" 200 "));
    server.program().Signal(SIGTERM);
    return server.program().Finish().err;
  };
  EXPECT_THAT(log({"--decode-log-interval", "1"}),
              AllOf(HasSubstr("Prefill batch, #new-seq: 1"), HasSubstr("Decode batch, #running")));
  EXPECT_THAT(log({"--decode-log-interval", "1", "--disable-log-stats"}), Not(HasSubstr(" batch")));
}

TEST(Serve, OrderOfPriorities) {
  const auto said = [](std::vector<std::string> args) {
    args.insert(args.begin(), {"serve", "--dry-run"});
    return RunProgram(LAPIDARY_PROGRAM, args).err;
  };
  EXPECT_THAT(said({"--scheduling-policy", "priority"}), HasSubstr("priority, smaller first"));
  EXPECT_THAT(said({"--enable-priority-scheduling"}), HasSubstr("priority, larger first"));
  EXPECT_THAT(said({"--enable-priority-scheduling", "--schedule-low-priority-values-first"}),
              HasSubstr("priority, smaller first"));
  EXPECT_THAT(said({"--scheduling-policy", "priority", "--priority-order", "high-first"}),
              HasSubstr("priority, larger first"));
  EXPECT_THAT(said({"--schedule-policy", "lpm"}), HasSubstr("order lpm  [--schedule-policy]"));
  EXPECT_THAT(said({"--schedule-policy", "lpm", "--scheduling-policy", "priority"}),
              HasSubstr("order priority, smaller first, then lpm  "));
  EXPECT_THAT(said({"--priority-order", "high-first"}), HasSubstr("needs --scheduling-policy"));
  EXPECT_THAT(said({"--scheduling-policy", "fcfs", "--enable-priority-scheduling"}),
              HasSubstr("disagree"));
  EXPECT_THAT(said({"--enable-priority-scheduling", "--schedule-low-priority-values-first",
                    "--priority-order", "high-first"}),
              HasSubstr("disagree"));
}

// r sliding tokens for each full one: (r / s) / (1 / f + r / s) of the slabs, with f and s the
// pages a slab holds.
TEST(Serve, SlidingRatioIsAShareOfSlabs) {
  const json::value plan = json::parse(RunProgram(LAPIDARY_PROGRAM, {"plan", "--json"}).out);
  const auto full = plan.at("full_pages_per_slab").to_number<double>();
  const auto sliding = plan.at("sliding_pages_per_slab").to_number<double>();
  const double share = 0.5 / sliding / (1 / full + 0.5 / sliding);
  EXPECT_THAT(
      RunProgram(LAPIDARY_PROGRAM, {"serve", "--dry-run", "--swa-full-tokens-ratio", "0.5"}).err,
      HasSubstr(fmt::format("sliding pages keep {:.3f} of the slabs", share)));
}

TEST(Serve, DraftsOfBothSpellings) {
  const auto said = [](std::vector<std::string> args) {
    RunningServer server(std::move(args));
    return server.program().so_far().err;
  };
  EXPECT_THAT(said({}), HasSubstr("drafts a burst: adaptive, up to 4  [--speculative-num-steps]   "
                                  "position measured  [--draft-position]"));
  EXPECT_THAT(said({"--speculative-algorithm", "EAGLE", "--speculative-num-steps", "2",
                    "--speculative-eagle-topk", "1", "--speculative-num-draft-tokens", "3",
                    "--draft-position", "last-kv"}),
              HasSubstr("drafts a burst: 2  [--speculative-num-steps]   position last-kv"));
  EXPECT_THAT(said({"--speculative-config.method", "mtp",
                    "--speculative-config.num_speculative_tokens", "3"}),
              HasSubstr("drafts a burst: 3 "));
  EXPECT_THAT(said({"--no-mtp"}), HasSubstr("draft   off: 0 drafts a burst"));
}

TEST(Serve, TellsItsFlagsAndNoKey) {
  RunningServer server({"--max-num-seqs", "3", "--api-key", "hush"});
  const std::string info = server.Post("/server_info", "", "x-api-key: hush\r\n");
  EXPECT_THAT(info, HasSubstr(R"("--max-num-seqs":{"value":"3","origin":"command line"})"));
  EXPECT_THAT(info, HasSubstr(R"("--host":{"value":"127.0.0.1","origin":"default"})"));
  EXPECT_THAT(info, HasSubstr(R"("max_running_requests":3)"));
  EXPECT_THAT(info, Not(HasSubstr("hush")));
}

TEST(Serve, RefusesFlagsByName) {
  const auto run = [](std::vector<std::string> args) {
    args.insert(args.begin(), {"serve", "--dry-run"});
    return RunProgram(LAPIDARY_PROGRAM, args);
  };
  const std::vector<std::vector<std::string>> wrong = {
      {"--prot", "80"},
      {"--quantization", "fp8"},
      {"--tp-size", "2"},
      {"--metrics-auth", "x"},
      {"--tool-call-parser", "hermes"},
      {"--generation-config", "/tmp"},
      {"--log-level", "loud"},
      {"--speculative-num-steps", "9"},
      {"--speculative-config", "{"},
      {"--speculative-config", R"({"method":"ngram"})"}};
  for (const std::vector<std::string>& args : wrong) {
    const ProgramResult result = run(args);
    EXPECT_EQ(result.exit_code, 2) << args[0] << result.err;
    EXPECT_THAT(result.err, HasSubstr(args[0]));
  }
  EXPECT_THAT(run({"--speculative-num-steps", "2", "--speculative-num-draft-tokens", "4"}).err,
              HasSubstr("one flag asks for"));
  EXPECT_EQ(run({"--speculative-num-steps", "0", "--speculative-num-draft-tokens", "1", "--no-mtp",
                 "--speculative-config", R"({"method":"mtp","num_speculative_tokens":0})"})
                .exit_code,
            0);
  const ProgramResult kwargs = run({"--default-chat-template-kwargs", R"({"tokenize":true})"});
  EXPECT_EQ(kwargs.exit_code, 2);
  EXPECT_EQ(run({"--default-chat-template-kwargs", "{"}).exit_code, 2);
  EXPECT_EQ(run({"--api-key", ""}).exit_code, 2);
  EXPECT_EQ(run({"--scheduling-policy", "fcfs", "--enable-priority-scheduling"}).exit_code, 2);
  EXPECT_THAT(kwargs.err, HasSubstr("'tokenize' is not understood"));
  EXPECT_THAT(run({"/nonexistent"}).err, HasSubstr("no model at '/nonexistent'"));
}

}  // namespace
}  // namespace lapidary
