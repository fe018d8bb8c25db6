#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
    args.insert(args.begin(), {"eval", file_.string(), "--max-tokens", "64"});
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
