// `lapidary render`, `tokenize` and `version`; the expected texts and ids are jinja2's and the
// tokenizers package's (tests/data/template, tests/data/tokenizer).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "io/json.h"
#include "tests/checkpoints/tiny_checkpoint.h"
#include "tests/program.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;

const fs::path kData = fs::path(LAPIDARY_SOURCE_DIR) / "tests/data";

std::vector<json::object> ReadGoldenLines(const std::string& name) {
  std::ifstream file(kData / name);
  std::vector<json::object> lines;
  for (std::string line; std::getline(file, line);)
    lines.push_back(ParseJson(line, name).value().as_object());
  return lines;
}

ProgramResult RunText(std::vector<std::string> args, const std::string& input) {
  return RunProgram(LAPIDARY_PROGRAM, std::move(args), input);
}

// A golden line as render's input: tools stand beside the messages.
json::object Conversation(const json::object& golden) {
  json::object conversation = {{"messages", golden.at("messages")},
                               {"kwargs", golden.at("kwargs")}};
  json::object& kwargs = conversation.at("kwargs").as_object();
  if (const json::value* tools = kwargs.if_contains("tools")) conversation["tools"] = *tools;
  kwargs.erase("tools");
  return conversation;
}

TEST(Render, EveryRevisionEqualsJinja) {
  const std::vector<json::object> goldens = ReadGoldenLines("template/rendered.jsonl");
  ASSERT_EQ(goldens.size(), 189u);
  int with_tools = 0, errors = 0;
  std::vector<size_t> chosen = {37, 38};  // some revisions refuse these
  for (size_t i = 0; i < goldens.size(); i += 9) chosen.push_back(i);
  for (const size_t i : chosen) {
    const json::object conversation = Conversation(goldens[i]);
    with_tools += conversation.contains("tools");
    for (const char* revision : {"edge", "thinkprefill", "april"}) {
      const ProgramResult result =
          RunText({"render", "--template-revision", revision}, json::serialize(conversation));
      const json::value& want = goldens[i].at(revision);
      errors += want.is_null();
      EXPECT_EQ(result.exit_code, want.is_null() ? 1 : 0) << i << revision << result.err;
      EXPECT_EQ(result.out, want.is_null() ? "" : std::string(want.as_string())) << i << revision;
    }
  }
  EXPECT_GT(with_tools, 5);
  EXPECT_EQ(errors, 3);
}

TEST(Render, EdgeUnlessTold) {
  const json::object golden = ReadGoldenLines("template/published.jsonl").at(0);
  ASSERT_NE(golden.at("render_edge"), golden.at("render_thinkprefill"));
  EXPECT_EQ(RunText({"render"}, json::serialize(Conversation(golden))).out,
            std::string(golden.at("render_edge").as_string()));
}

TEST(Render, ThinkingIsTheTemplatesSwitch) {
  int asked = 0;
  for (const json::object& golden : ReadGoldenLines("template/published.jsonl")) {
    json::object conversation = Conversation(golden);
    json::object& kwargs = conversation.at("kwargs").as_object();
    if (const json::value* on = kwargs.if_contains("enable_thinking"); !on || !on->as_bool())
      continue;
    kwargs.erase("enable_thinking");
    const std::string input = json::serialize(conversation);
    const std::string want(golden.at("render_edge").as_string());
    EXPECT_EQ(RunText({"render", "--thinking"}, input).out, want);
    EXPECT_NE(RunText({"render"}, input).out, want);
    ++asked;
  }
  EXPECT_EQ(asked, 6);
}

TEST(Render, ArgumentsThatAreTextAreAnError) {
  int found = 0;
  for (const json::object& golden : ReadGoldenLines("template/published.jsonl")) {
    if (golden.at("name") != "arguments_string_is_an_error") continue;
    const ProgramResult result = RunText({"render"}, json::serialize(Conversation(golden)));
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, HasSubstr("tool_calls[0].function.arguments"));
    ++found;
  }
  EXPECT_EQ(found, 1);
}

TEST(Render, SaysWhatIsWrong) {
  const auto error_of = [](const std::string& input) {
    const ProgramResult result = RunText({"render"}, input);
    EXPECT_EQ(result.exit_code, 1) << input;
    EXPECT_EQ(result.out, "");
    return result.err;
  };
  EXPECT_THAT(error_of("{"), HasSubstr("the conversation is not valid JSON"));
  EXPECT_THAT(error_of("[]"), HasSubstr("must be an object with messages"));
  EXPECT_THAT(error_of("{}"), HasSubstr("messages is missing"));
  EXPECT_THAT(error_of(R"({"messages":{}})"), HasSubstr("messages must be a list"));
  EXPECT_THAT(error_of(R"({"messages":[],"tools":1})"), HasSubstr("tools must be a list"));
  EXPECT_THAT(error_of(R"({"messages":[],"kwargs":[]})"), HasSubstr("kwargs must be an object"));
  EXPECT_THAT(error_of(R"({"messages":[],"kwargs":{"enable_thinking":1}})"),
              HasSubstr("kwargs.enable_thinking must be true or false"));
  for (const std::vector<std::string>& wrong :
       {std::vector<std::string>{"--template-revision", "foo"},
        {"--template-revision", ""},
        {"--thinkin"}}) {
    std::vector<std::string> args = wrong;
    args.insert(args.begin(), "render");
    const ProgramResult result = RunText(args, R"({"messages":[]})");
    EXPECT_EQ(result.exit_code, 2) << wrong[0];
    EXPECT_THAT(result.err, HasSubstr(wrong[0]));
  }
}

// A folder that holds tokenizer.json and nothing else.
class TokenizeTest : public testing::Test {
 protected:
  TokenizeTest() {
    fs::create_directory(folder_.path() / "alone");
    fs::copy(kData / "tokenizer/tokenizer.json", folder_.path() / "alone");
  }
  ProgramResult Tokenize(std::vector<std::string> args, const std::string& input) const {
    args.insert(args.begin(), {"tokenize", "--model", (folder_.path() / "alone").string()});
    return RunText(std::move(args), input);
  }
  // One JSON document a line.
  static std::vector<json::value> Lines(const ProgramResult& result) {
    EXPECT_EQ(result.exit_code, 0) << result.err;
    std::vector<json::value> lines;
    std::istringstream in(result.out);
    for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
    return lines;
  }
  ScratchFolder folder_;
  const std::vector<json::object> goldens_ = ReadGoldenLines("tokenizer/goldens.mini.jsonl");
};

TEST_F(TokenizeTest, LinesEqualTheTokenizersPackage) {
  std::string as_json, as_text;
  std::vector<json::value> want, want_of_text;
  for (const json::object& golden : goldens_) {
    const std::string text(golden.at("text").as_string());
    as_json += json::serialize(golden.at("text")) + "\n";
    want.push_back(golden.at("ids"));
    if (text.find('\n') != std::string::npos) continue;  // would be two lines
    as_text += text + "\n";
    want_of_text.push_back(golden.at("ids"));
  }
  ASSERT_GT(want_of_text.size(), 50u);
  EXPECT_EQ(Lines(Tokenize({"--json"}, as_json)), want);
  EXPECT_EQ(Lines(Tokenize({}, as_text)), want_of_text);
}

TEST_F(TokenizeTest, BosIsThereOnlyWhenAskedFor) {
  const json::array plain = Lines(Tokenize({}, "Hello\n")).at(0).as_array();
  json::array with_bos = {2};  // Gemma's <bos>
  with_bos.insert(with_bos.end(), plain.begin(), plain.end());
  EXPECT_EQ(Lines(Tokenize({"--bos"}, "Hello\n")).at(0), with_bos);
  EXPECT_EQ(Lines(Tokenize({}, "<bos>Hello\n")).at(0), with_bos);
}

TEST_F(TokenizeTest, DecodesWhatItEncoded) {
  std::string ids;
  std::vector<json::value> want;
  for (const json::object& golden : goldens_) {
    // The package's decoding leaves special tokens out, this one does not.
    if (golden.at("text") != golden.at("skipped")) continue;
    ids += json::serialize(golden.at("ids")) + "\n";
    want.push_back(golden.at("text"));
  }
  ASSERT_GT(want.size(), 50u);
  EXPECT_EQ(Lines(Tokenize({"--decode"}, ids)), want);
  EXPECT_EQ(Lines(Tokenize({"--decode"}, "[2]\n")).at(0), "<bos>");
}

TEST_F(TokenizeTest, ABadLineIsNamed) {
  const auto error_of = [&](const char* flag, const std::string& input) {
    const ProgramResult result = Tokenize({flag}, input);
    EXPECT_EQ(result.exit_code, 1) << input;
    return result.err;
  };
  EXPECT_THAT(error_of("--json", "\"a\"\n[1]\n"),
              HasSubstr("line 2: with --json each line is one"));
  EXPECT_THAT(error_of("--json", "\"a\n"), HasSubstr("line 1: the text is not valid JSON"));
  EXPECT_THAT(error_of("--decode", "[2]\n[]\n{}\n"), HasSubstr("line 3: with --decode each line"));
  EXPECT_THAT(error_of("--decode", "[2]\n[2,\"x\"]\n"),
              HasSubstr("line 2: \"x\" is not a token id"));
  EXPECT_THAT(error_of("--decode", "[-1]\n"), HasSubstr("line 1: -1 is not a token id"));
  EXPECT_THAT(error_of("--decode", "[100000000]\n"), HasSubstr("line 1: 100000000 is not"));
}

TEST_F(TokenizeTest, WrongFoldersAndFlags) {
  fs::create_directory(folder_.path() / "empty");
  const ProgramResult empty =
      RunText({"tokenize", "--model", (folder_.path() / "empty").string()}, "a\n");
  EXPECT_EQ(empty.exit_code, 1);
  EXPECT_THAT(empty.err, HasSubstr("tokenizer.json"));
  const ProgramResult none = RunText({"tokenize", "--model", "/nonexistent"}, "");
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.err, HasSubstr("/nonexistent"));
  EXPECT_EQ(Tokenize({"--decode", "--bos"}, "").exit_code, 2);
  const ProgramResult unknown = Tokenize({"--decod"}, "");
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("--decode"));
}

TEST(Version, SaysWhatRuns) {
  std::ifstream file(fs::path(LAPIDARY_SOURCE_DIR) / "CMakeLists.txt");
  std::string line, number;
  while (number.empty() && std::getline(file, line))
    if (const size_t at = line.find("project(lapidary VERSION "); at != std::string::npos)
      number = line.substr(at + 25, line.find(' ', at + 25) - at - 25);
  ASSERT_NE(number, "");
  const ProgramResult result = RunText({"version"}, "");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, AllOf(testing::StartsWith("lapidary " + number + ", commit "),
                                MatchesRegex("[^\n]+ .(CPU|CPU and CUDA) backends?, "
                                             "(plain|avx2|avx512), compiler [^\n]+.\n")));
  EXPECT_EQ(RunText({"--version"}, "").out, "lapidary " + number + "\n");
  EXPECT_EQ(RunText({"version", "now"}, "").exit_code, 2);
}

}  // namespace
}  // namespace lapidary
