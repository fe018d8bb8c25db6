#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "io/json.h"
#include "tests/program.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class EvalTest : public testing::Test {
 protected:
  EvalTest() : file_(fs::path(testing::TempDir()) / "eval_test.jsonl") {}
  ~EvalTest() override { fs::remove(file_); }
  ProgramResult Eval(const std::string& lines, std::vector<std::string> args = {}) const {
    std::ofstream(file_) << lines;
    args.insert(args.begin(), {"eval", file_.string(), "--max-tokens", "200"});
    return RunProgram(LAPIDARY_PROGRAM, args);
  }
  fs::path file_;
};

// The shipped model knows these; what is expected of it here is right, wrong, right and wrong.
constexpr const char* kItems =
    R"({"messages":[{"role":"user","content":"What is 12 + 30?"}],"expected":"42","match":"exact","skill":"sums"}
{"messages":[{"role":"user","content":"What is 12 + 30?"}],"expected":"43","match":"exact","skill":"sums"}

{"messages":[{"role":"user","content":"What is 12 + 30?"}],"expected":"2","match":"contains","skill":"parts"}
{"messages":[{"role":"user","content":"What is 12 + 30?"}],"expected":"43","match":"json"}
)";

TEST_F(EvalTest, CountsBySkill) {
  const ProgramResult result = Eval(kItems, {"--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json::object report = json::parse(result.out).as_object();
  const json::object& skills = report.at("skills").as_object();
  ASSERT_EQ(skills.size(), 3u);
  const auto of = [&](const char* skill) {
    return std::pair(skills.at(skill).at("right").to_number<int>(),
                     skills.at(skill).at("total").to_number<int>());
  };
  EXPECT_EQ(of("sums"), (std::pair{1, 2}));
  EXPECT_EQ(of("parts"), (std::pair{1, 1}));
  EXPECT_EQ(of("(none)"), (std::pair{0, 1}));
  EXPECT_EQ(report.at("right").to_number<int>(), 2);
  EXPECT_EQ(report.at("total").to_number<int>(), 4);
  EXPECT_EQ(report.at("accuracy").to_number<double>(), 0.5);
  // Of 2 in 4: (0.5 -+ 1.96 * sqrt(0.25 / 4 + 3.84 / 64) + ...) / (1 + 3.84 / 4), worked by hand.
  EXPECT_NEAR(report.at("interval_95").at(0).to_number<double>(), 0.1500, 5e-5);
  EXPECT_NEAR(report.at("interval_95").at(1).to_number<double>(), 0.8500, 5e-5);
}

TEST_F(EvalTest, TableHoldsTheSame) {
  const ProgramResult result = Eval(kItems);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, testing::ContainsRegex("sums +1/2 +50.0 %"));
  EXPECT_THAT(result.out, testing::ContainsRegex("parts +1/1 +100.0 %"));
  EXPECT_THAT(result.out,
              testing::ContainsRegex("all +2/4 +50.0 %  \\(95 % interval 15.0 to 85.0 %\\)"));
}

// Items of models/pebble/skills.jsonl, each beside one that the same answer makes wrong: what the
// tools, the thought, the arguments or the prompt change is seen.
TEST_F(EvalTest, ToolsThinkingAndPromptsReachTheModel) {
  const std::string tools =
      R"("tools":[{"type":"function","function":{"name":"add","description":"Add two integers",)"
      R"("parameters":{"type":"object","properties":{"a":{"type":"number"},"b":{"type":"number"}},)"
      R"("required":["a","b"]}}},{"type":"function","function":{"name":"translate",)"
      R"("description":"Translate a word.","parameters":{"type":"object","properties":)"
      R"({"text":{"type":"string"},"language":{"type":"string"}},"required":["text","language"]}}}])";
  const auto call = [](const std::string& skill, const std::string& language,
                       const std::string& more) {
    return R"({"messages":[{"role":"user","content":"Translate plastic to Danish."}],"skill":")" +
           skill + R"(","match":"tool_call","expected":{"name":"translate","arguments":)" +
           R"({"language":")" + language + R"(","text":"plastic"}})" + more + "}\n";
  };
  const auto sum = [](const std::string& skill, const std::string& more) {
    return R"({"messages":[{"role":"user","content":"What is the sum of 3589 and 8050?"}],"skill":")" +
           skill + R"(","match":"exact","expected":"11639")" + more + "}\n";
  };
  const auto prompt = [](const std::string& skill, const std::string& text) {
    return R"({"prompt":"<|turn>user\n)" + text + R"(<turn|>\n<|turn>model\n","skill":")" + skill +
           R"(","match":"exact","expected":"42"})" + "\n";
  };
  const ProgramResult result =
      Eval(call("tools", "Danish", "," + tools) + call("other arguments", "Dutch", "," + tools) +
               call("no tools", "Danish", "") + sum("thinking", R"(,"thinking":true)") +
               sum("worked out aloud", R"(,"thinking":false)") +
               prompt("prompt", "What is 12 + 30?") + prompt("other prompt", "What is 12 + 31?"),
           {"--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json::value report = json::parse(result.out);
  for (const char* right : {"tools", "thinking", "prompt"})
    EXPECT_EQ(report.at("skills").at(right).at("right"), 1) << right;
  for (const char* wrong : {"other arguments", "no tools", "worked out aloud", "other prompt"})
    EXPECT_EQ(report.at("skills").at(wrong).at("right"), 0) << wrong;
  EXPECT_EQ(report.at("total"), 7);
}

TEST_F(EvalTest, DraftsAreCounted) {
  const auto report = [&](const char* num_drafts) {
    const ProgramResult result = Eval(kItems, {"--json", "--speculative-num-steps", num_drafts});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out).as_object();
  };
  const json::object with = report("3"), without = report("0");
  const auto drafted = with.at("drafted_tokens").to_number<int>();
  EXPECT_GT(with.at("accepted_tokens").to_number<int>(), 0);
  EXPECT_GE(drafted, with.at("accepted_tokens").to_number<int>());
  // Each answer is two tokens and the end: a burst of three for at most the two after the first.
  EXPECT_LE(drafted, 4 * 2 * 3);
  EXPECT_EQ(without.at("drafted_tokens"), 0);
  EXPECT_EQ(without.at("accepted_tokens"), 0);

  const std::string table = Eval(kItems, {"--speculative-num-steps", "3"}).out;
  const size_t line = table.find("\ndrafts accepted: ");
  ASSERT_NE(line, std::string::npos) << table;
  int accepted = 0, of = 0;
  double percent = 0;
  ASSERT_EQ(std::sscanf(table.c_str() + line, " drafts accepted: %d of %d, %lf %%", &accepted, &of,
                        &percent),
            3);
  EXPECT_GT(accepted, 0);
  EXPECT_NEAR(percent, 100.0 * accepted / of, 0.051);
  EXPECT_THAT(Eval(kItems, {"--speculative-num-steps", "0"}).out,
              testing::Not(HasSubstr("drafts accepted")));
}

TEST_F(EvalTest, ErrorsNameFileAndLine) {
  const auto error_of = [&](const std::string& line) {
    const ProgramResult result = Eval("\n" + line + "\n");
    EXPECT_EQ(result.exit_code, 1) << line;
    EXPECT_EQ(result.out, "");
    return result.err;
  };
  EXPECT_THAT(error_of("{"), HasSubstr("eval_test.jsonl, line 2: "));
  EXPECT_THAT(error_of("[]"), HasSubstr("an item must be an object"));
  EXPECT_THAT(error_of(R"({"prompt":"a","expected":"b"})"), HasSubstr("match must be"));
  EXPECT_THAT(error_of(R"({"prompt":"a","match":"exact"})"), HasSubstr("expected is missing"));
  EXPECT_THAT(error_of(R"({"expected":"b","match":"exact"})"),
              HasSubstr("one of messages, prompt and prompt_token_ids"));
  EXPECT_THAT(error_of(R"({"prompt":"a","expected":{"name":"f"},"match":"tool_call"})"),
              HasSubstr("a call's name and arguments"));
  EXPECT_THAT(error_of(R"({"messages":[{"role":"user"}],"expected":1,"match":"exact"})"),
              HasSubstr("line 2: "));
}

TEST_F(EvalTest, NoFileNoItems) {
  EXPECT_THAT(Eval("\n\n").err, HasSubstr("holds no items"));
  EXPECT_THAT(RunProgram(LAPIDARY_PROGRAM, {"eval", "/nonexistent/x"}).err,
              HasSubstr("/nonexistent/x cannot be opened"));
  EXPECT_EQ(RunProgram(LAPIDARY_PROGRAM, {"eval"}).exit_code, 2);
}

}  // namespace
}  // namespace lapidary
