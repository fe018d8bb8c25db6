#include "text/reply_parser.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "io/mapped_file.h"
#include "tests/support/rounds.h"
#include "text/chat_template.h"

namespace lapidary {
namespace {

constexpr const char* kControls[] = {"<|channel>",   "<channel|>", "<|tool_call>",
                                     "<tool_call|>", "<|\"|>",     "<|tool_response>",
                                     "<turn|>",      "<eos>",      "<|turn>"};

// The mini vocabulary with the control tokens it lacks.
const Tokenizer& Mini() {
  static const Tokenizer tokenizer = [] {
    const std::string path =
        std::string(LAPIDARY_SOURCE_DIR) + "/tests/data/tokenizer/tokenizer.json";
    json::value config = ParseJson(ReadFile(path, 1 << 20).value(), "tokenizer").value();
    json::array& added = config.as_object()["added_tokens"].as_array();
    json::object& vocab = config.as_object()["model"].as_object()["vocab"].as_object();
    for (const char* content : {"<|channel>", "<channel|>", "<|tool_response>"}) {
      json::object entry = added[0].as_object();
      entry["id"] = vocab.size();
      entry["content"] = content;
      vocab[content] = vocab.size();
      added.push_back(entry);
    }
    auto parsed = Tokenizer::Parse(json::serialize(config), "tokenizer");
    CHECK(parsed.ok(), "{}", parsed.error().message);
    return std::move(parsed).value();
  }();
  return tokenizer;
}

struct Reply {
  std::string reasoning, content;
  std::vector<std::string> names, arguments;
  int slips = 0, reasoning_tokens = 0;
};

Reply ParseIds(const std::vector<int32_t>& ids, const json::array* tools, bool in_thought) {
  ReplyParser parser(Mini(), ReplyTokens::Of(Mini()), DeclaredTools::Of(tools), in_thought);
  Reply reply;
  const auto take = [&reply](const std::vector<ReplyDelta>& deltas) {
    for (const ReplyDelta& delta : deltas) {
      EXPECT_EQ(ToValidUtf8(delta.text), delta.text);
      if (delta.kind == ReplyDelta::kReasoning) reply.reasoning += delta.text;
      if (delta.kind == ReplyDelta::kContent) reply.content += delta.text;
      if (delta.kind == ReplyDelta::kToolCall) {
        EXPECT_EQ(delta.index, static_cast<int>(reply.names.size()));
        reply.names.push_back(delta.text);
        reply.arguments.emplace_back();
      }
      if (delta.kind == ReplyDelta::kToolArguments)
        reply.arguments.at(static_cast<size_t>(delta.index)) += delta.text;
    }
  };
  for (const int32_t id : ids) take(parser.Push(id));
  take(parser.Finish());
  reply.slips = std::accumulate(parser.slips().begin(), parser.slips().end(), 0);
  reply.reasoning_tokens = parser.num_reasoning_tokens();
  EXPECT_EQ(parser.has_calls(), !reply.names.empty());
  return reply;
}

json::array WeatherTools() {
  return ParseJson(R"([{"type":"function","function":{"name":"get_weather","parameters":{
      "type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"},
      "zips":{"type":"array","items":{"type":"string"}}}}}}, 7, {"function":{}}])",
                   "tools")
      .value()
      .as_array();
}

Reply Parse(const std::string& text, bool in_thought = false) {
  const json::array tools = WeatherTools();
  return ParseIds(Mini().Encode(text), &tools, in_thought);
}

void ExpectText(const Reply& reply, const std::string& reasoning, const std::string& content,
                int slips) {
  EXPECT_EQ(reply.reasoning, reasoning);
  EXPECT_EQ(reply.content, content);
  EXPECT_EQ(reply.slips, slips);
  EXPECT_TRUE(reply.names.empty());
}

void ExpectCall(const Reply& reply, const std::string& name, const std::string& arguments,
                int slips) {
  ASSERT_EQ(reply.names.size(), 1u) << reply.content;
  EXPECT_EQ(reply.names[0], name);
  EXPECT_EQ(reply.arguments[0], arguments);
  EXPECT_EQ(reply.content, "");
  EXPECT_EQ(reply.slips, slips);
}

TEST(ReplyParser, SplitsThoughtAndContent) {
  ExpectText(Parse("plain 你好 🙂\ntext<turn|>"), "", "plain 你好 🙂\ntext", 0);
  ExpectText(Parse("<|channel>thought\nwhy\nnot\n<channel|>so<turn|>"), "why\nnot", "so", 0);
  ExpectText(Parse("<|channel>thought\n<channel|>so<eos>"), "", "so", 0);
  ExpectText(Parse("<|channel>thoughts here<channel|>so"), "thoughts here", "so", 0);
  ExpectText(Parse("on\n<channel|>so", true), "on", "so", 0);
  EXPECT_EQ(ParseIds(Mini().Encode("<|channel>aaaa<channel|>b"), nullptr, false).reasoning_tokens,
            3);
}

TEST(ReplyParser, RepairsStrayTokens) {
  ExpectText(Parse("a<channel|>b<tool_call|>c"), "", "abc", 2);
  ExpectText(Parse("<|channel>thought\na<|channel>thought\nb\n<channel|>c"), "a\nb", "c", 1);
  ExpectText(Parse("<|channel>thought\na\n<channel|>x<|channel>thought\nb\n<channel|>y"), "a\nb",
             "xy", 0);
  ExpectText(Parse("a<|turn>b<|\"|>c"), "", "abc", 2);
  ExpectText(Parse("<|channel>thought\ncut"), "cut", "", 0);
}

TEST(ReplyParser, ReadsTheWorkedExamples) {
  ExpectCall(Parse("<|tool_call>call:get_weather{city:<|\"|>Paris<|\"|>,days:3}<tool_call|>"
                   "<|tool_response>"),
             "get_weather", R"({"city":"Paris","days":3})", 0);
  ExpectCall(Parse("<|tool_call>call:f{a:null,b:true,c:[1,<|\"|>x<|\"|>,{k:null}],e:{}}"
                   "<tool_call|>"),
             "f", R"({"a":null,"b":true,"c":[1,"x",{"k":null}],"e":{}})", 0);
}

TEST(ReplyParser, TypesBareValuesByTheSchema) {
  ExpectCall(Parse("<|tool_call>call:get_weather{city:75001,days:3,zips:[1, 2]}<tool_call|>"),
             "get_weather", R"({"city":"75001","days":3,"zips":["1","2"]})", 0);
  ExpectCall(Parse("<|tool_call>call:a.b-c{w:red,n:None,m:-1.50e3,z:007,f:false,<|\"|>q<|\"|>:1}"
                   "<tool_call|>"),
             "a.b-c", R"({"w":"red","n":null,"m":-1.50e3,"z":"007","f":false,"q":1})", 0);
  ExpectCall(
      Parse("<|tool_call>call:f{a:1e308,b:-2e318446744073709551615,c:-0e34073709551393,d:-0e3,e:"
            "1e400}<tool_call|>"),
      "f",
      R"({"a":1e308,"b":"-2e318446744073709551615","c":"-0e34073709551393","d":-0e3,"e":"1e400"})",
      0);
  ExpectCall(Parse("<|tool_call>call:f{a:<|\"|>}],{\"\n<|\"|>}<tool_call|>"), "f",
             R"({"a":"}],{\"\n"})", 0);
}

TEST(ReplyParser, CallEndsAThought) {
  const Reply reply = Parse("<|channel>thought\nhm\n<|tool_call>call:f{}<tool_call|>");
  EXPECT_EQ(reply.reasoning, "hm");
  ExpectCall(reply, "f", "{}", 1);
}

TEST(ReplyParser, ClosesACallThatIsCut) {
  const std::string open = "<|tool_call>call:get_weather{";
  ExpectCall(Parse(open), "get_weather", "{}", 0);
  ExpectCall(Parse(open + "ci"), "get_weather", "{}", 0);
  ExpectCall(Parse(open + "city:"), "get_weather", "{}", 0);
  ExpectCall(Parse(open + "city:<|\"|>Par"), "get_weather", R"({"city":"Par"})", 0);
  ExpectCall(Parse(open + "city:<|\"|>P<|\"|>,days:1"), "get_weather", R"({"city":"P"})", 0);
  ExpectCall(Parse(open + "x:[{a:1,b:[2,"), "get_weather", R"({"x":[{"a":1,"b":[2]}]})", 0);
}

TEST(ReplyParser, GivesAMalformedCallAsContent) {
  for (const std::string body :
       {"", "call:", "call:{}", "f{}", "call:f{a}", "call:f{a:}", "call:f{a:1", "call:f{:1}"})
    ExpectText(Parse("<|tool_call>" + body + "<tool_call|>!"), "", body + "!", 1);
  ExpectText(Parse("<|tool_call>call:f{a<|\"|>b<|\"|>}<tool_call|>"), "", "call:f{a\"b\"}", 1);
}

// What was given cannot be taken back.
TEST(ReplyParser, ClosesACallWhereItBreaks) {
  const auto expect = [](const std::string& body, const std::string& arguments,
                         const std::string& content) {
    const Reply reply = Parse("<|tool_call>call:f{" + body + "<tool_call|>!");
    ASSERT_EQ(reply.names.size(), 1u) << body;
    EXPECT_EQ(reply.arguments[0], arguments);
    EXPECT_EQ(reply.content, content);
    EXPECT_EQ(reply.slips, 1);
  };
  expect("a:1}}", R"({"a":1})", "}!");
  expect("a:1}b", R"({"a":1})", "b!");
  expect("a:[1}", R"({"a":[1]})", "}!");
  expect("a:[1,", R"({"a":[1]})", ",!");
  expect("a:<|\"|>b<|\"|>,c d}", R"({"a":"b"})", ",c d}!");
  expect("a:<|\"|>b<|\"|>c:<|\"|>d<|\"|>}", R"({"a":"b"})", "c:\"d\"}!");
}

TEST(ReplyParser, GivesACallAsItsTextComes) {
  // Each piece as its tokens come, and what of the arguments is known then.
  const std::pair<const char*, const char*> kSteps[] = {{"<|tool_call>call:get_weather{", nullptr},
                                                        {"city:", nullptr},
                                                        {"<|\"|>", R"({"city":")"},
                                                        {"Par", "Par"},
                                                        {"is\n", R"(is\n)"},
                                                        {"<|\"|>", R"(")"},
                                                        {",days", ""},
                                                        {":1", ""},
                                                        {"2,", R"(,"days":12)"},
                                                        {"zips:[", R"(,"zips":[)"},
                                                        {"75001", ""},
                                                        {"]", R"("75001"])"},
                                                        {"}", "}"}};
  const json::array tools = WeatherTools();
  ReplyParser parser(Mini(), ReplyTokens::Of(Mini()), DeclaredTools::Of(&tools), false);
  for (const auto& [text, expected] : kSteps) {
    std::string name, pieces;
    for (const int32_t id : Mini().Encode(text))
      for (const ReplyDelta& delta : parser.Push(id))
        (delta.kind == ReplyDelta::kToolCall ? name : pieces) += delta.text;
    EXPECT_EQ(parser.has_calls(), expected != nullptr) << text;
    EXPECT_EQ(pieces, expected == nullptr ? "" : expected) << text;
    EXPECT_EQ(name, std::string_view(pieces) == R"({"city":")" ? "get_weather" : "") << text;
  }
}

TEST(ReplyParser, NestingIsBounded) {
  const auto nested = [](size_t depth) {
    return "call:f{a:" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  EXPECT_EQ(Parse("<|tool_call>" + nested(63) + "<tool_call|>").names.size(), 1u);
  for (const size_t depth : {size_t{64}, size_t{100000}}) {
    const Reply reply = Parse("<|tool_call>" + nested(depth) + "<tool_call|>");
    ASSERT_EQ(reply.names.size(), 1u);
    EXPECT_EQ(reply.arguments[0], "{\"a\":" + std::string(63, '[') + std::string(63, ']') + "}");
    EXPECT_EQ(reply.content.size(), 2 * depth - 63 + 1);
    EXPECT_EQ(reply.slips, 1);
  }
}

TEST(ReplyParser, WordsOfACallAreBounded) {
  const std::string word(3 << 19, 'a');
  ExpectCall(Parse("<|tool_call>call:f{a:<|\"|>" + word + "<|\"|>}<tool_call|>"), "f",
             "{\"a\":\"" + word + "\"}", 0);
  for (const std::string& body : {"call:f{a:" + word + "}", "call:f{" + word + ":1}", word + "{}"})
    ExpectText(Parse("<|tool_call>" + body + "<tool_call|>"), "", body, 1);
}

TEST(ReplyParser, TakesADeclaredCallWithoutItsOpeningToken) {
  ExpectCall(Parse("call:get_weather{city:<|\"|>}<|\"|>,days:1}"), "get_weather",
             R"({"city":"}","days":1})", 1);
  const Reply reply = Parse("ok\ncall:get_weather{days:1}\nthen");
  ASSERT_EQ(reply.names.size(), 1u);
  EXPECT_EQ(reply.content, "ok\n\nthen");
  ExpectText(Parse("call:other{days:1}"), "", "call:other{days:1}", 0);
  ExpectText(Parse("a call:get_weather{days:1}"), "", "a call:get_weather{days:1}", 0);
  ExpectText(Parse("call:get_wea"), "", "call:get_wea", 0);
}

TEST(ReplyParser, RulesOfAbsentTokensAreOff) {
  ReplyParser parser(Mini(), ReplyTokens(), DeclaredTools(), false);
  std::string text;
  for (const int32_t id : Mini().Encode("a<|tool_call>b<|channel>c"))
    for (const ReplyDelta& delta : parser.Push(id)) text += delta.text;
  for (const ReplyDelta& delta : parser.Finish()) text += delta.text;
  EXPECT_EQ(text, "abc");
}

// Strings are chosen to break a reader that does not skip over them.
json::value RandomValue(std::mt19937& random, int depth) {
  static const std::string kStrings[] = {"", "x", "a,b}", "]{:", "你好", "\"q\"\n", "true", "12"};
  const auto kind = static_cast<unsigned>(random()) % (depth < 4 ? 7 : 5);
  if (kind == 0) return nullptr;
  if (kind == 1) return random() % 2 == 0;
  if (kind == 2) return static_cast<int64_t>(random()) - (int64_t{1} << 31);
  if (kind == 3 || kind == 4) return json::value(kStrings[random() % std::size(kStrings)]);
  if (kind == 5) {
    json::array items;
    for (auto n = random() % 4; n > 0; --n) items.push_back(RandomValue(random, depth + 1));
    return items;
  }
  json::object members;
  for (auto n = random() % 4; n > 0; --n)
    members[std::string(1, static_cast<char>('a' + random() % 26))] =
        RandomValue(random, depth + 1);
  return members;
}

TEST(ReplyParser, UndoesTheCallsOfTheTemplate) {
  std::mt19937 random(5);
  const int num_rounds = Rounds(500);
  for (int round = 0; round < num_rounds; ++round) {
    json::object arguments{{"a", RandomValue(random, 0)}, {"b", RandomValue(random, 0)}};
    const json::object call{{"function", {{"name", "f"}, {"arguments", arguments}}}};
    const json::array messages{
        {{"role", "user"}, {"content", "x"}},
        json::object{{"role", "assistant"}, {"tool_calls", json::array{call}}}};
    const auto pieces = RenderChat(TemplateRevision::kEdge, messages, nullptr, RenderOptions());
    ASSERT_TRUE(pieces.ok()) << pieces.error().message;
    const std::string prompt = JoinPrompt(pieces.value());
    const Reply reply =
        ParseIds(Mini().Encode(prompt.substr(prompt.find("<|tool_call>"))), nullptr, false);
    ASSERT_EQ(reply.names.size(), 1u) << prompt;
    const auto parsed = ParseJson(reply.arguments[0], "arguments");
    ASSERT_TRUE(parsed.ok()) << reply.arguments[0];
    EXPECT_EQ(parsed.value(), json::value(arguments)) << prompt;
  }
}

TEST(ReplyParser, SurvivesAnyTokens) {
  std::vector<int32_t> words, controls;
  for (int32_t id = 0; id < Mini().vocab_size(); ++id)
    if (Mini().token(id).find_first_of("<>|") == std::string_view::npos ||
        Mini().token(id).starts_with("<0x"))
      words.push_back(id);
  for (const char* content : kControls) controls.push_back(Mini().Find(content).value());
  for (const char c : {':', '{', '}', '[', ']', ',', '\n', '1'})
    for (const int32_t id : Mini().Encode(std::string(1, c))) controls.push_back(id);
  const std::vector<int32_t> opening = Mini().Encode("call:get_weather{city:");
  const json::array tools = WeatherTools();
  std::mt19937 random(6);
  const int num_rounds = Rounds(3000);
  for (int round = 0; round < num_rounds; ++round) {
    std::vector<int32_t> ids;
    for (auto n = static_cast<unsigned>(random()) % 60; n > 0; --n) {
      const auto kind = random() % 8;
      if (kind == 0) ids.insert(ids.end(), opening.begin(), opening.end());
      ids.push_back(kind < 5 ? controls[random() % controls.size()]
                             : words[random() % words.size()]);
    }
    const Reply reply = ParseIds(ids, &tools, random() % 2 == 0);
    for (const char* content : kControls) {
      EXPECT_EQ(reply.content.find(content), std::string::npos);
      EXPECT_EQ(reply.reasoning.find(content), std::string::npos);
    }
    for (const std::string& arguments : reply.arguments)
      EXPECT_TRUE(ParseJson(arguments, "arguments").ok()) << arguments;
  }
}

}  // namespace
}  // namespace lapidary
