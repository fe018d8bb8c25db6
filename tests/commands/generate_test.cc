// `lapidary generate` on the shipped model, and without a tokenizer on small checkpoints whose
// greedy tokens are transformers' (tests/data/reference).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/value_from.hpp>
#include <boost/json/value_to.hpp>
#include <filesystem>

#include "io/json.h"
#include "io/safetensors.h"
#include "tests/checkpoints/tiny_checkpoint.h"
#include "tests/program.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;
using Ids = std::vector<int32_t>;

const fs::path kFamilies = fs::path(LAPIDARY_SOURCE_DIR) / "tests/data/reference";

ProgramResult Generate(std::vector<std::string> args) {
  args.insert(args.begin(), "generate");
  return RunProgram(LAPIDARY_PROGRAM, args);
}

struct Reply {
  Ids ids;
  std::string text, finish;
  int prompt_tokens;
};

// The object of --json, which is all there is on standard output.
Reply GenerateJson(std::vector<std::string> args) {
  args.emplace_back("--json");
  const ProgramResult result = Generate(std::move(args));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const auto document = ParseJson(result.out, "the output");
  if (!document.ok() || !document.value().is_object()) {
    ADD_FAILURE() << "no object alone: " << result.out << result.err;
    return {};
  }
  EXPECT_EQ(result.out.find('\n'), result.out.size() - 1);
  const json::object& object = document.value().get_object();
  EXPECT_EQ(object.size(), 4u);
  const json::object& timings = object.at("timings").as_object();
  const auto seconds = [&](const char* key) { return timings.at(key).to_number<double>(); };
  EXPECT_GT(seconds("load_s"), 0);
  EXPECT_GT(seconds("first_token_s"), 0);
  EXPECT_GE(seconds("total_s"), seconds("first_token_s"));
  return {json::value_to<Ids>(object.at("token_ids")), std::string(object.at("text").as_string()),
          std::string(object.at("finish_reason").as_string()),
          timings.at("prompt_tokens").to_number<int>()};
}

Reply FromIds(const std::string& ids, std::vector<std::string> more) {
  more.insert(more.begin(), {"--prompt-token-ids", ids});
  return GenerateJson(std::move(more));
}

// What the shipped model's tokenizer makes of a text: a JSON array.
std::string Tokenize(const std::string& text, std::vector<std::string> more = {}) {
  more.insert(more.begin(), {"tokenize", "--json"});
  return RunProgram(LAPIDARY_PROGRAM, more, json::serialize(json::value(text)) + "\n").out;
}

std::string Render(const std::string& question, std::vector<std::string> more = {}) {
  more.insert(more.begin(), "render");
  const json::object message = {{"role", "user"}, {"content", question}};
  const json::object conversation = {{"messages", json::array{message}}};
  return RunProgram(LAPIDARY_PROGRAM, more, json::serialize(conversation)).out;
}

int CountOf(const std::string& ids) { return static_cast<int>(json::parse(ids).as_array().size()); }

Ids GoldenIds(const Safetensors& goldens, const std::string& name) {
  const auto bytes = goldens.bytes(goldens.tensors().find(name)->second);
  const auto* first = reinterpret_cast<const int32_t*>(bytes.data());
  return {first, first + bytes.size() / sizeof(int32_t)};
}

TEST(Generate, IdsAloneNeedNoTokenizer) {
  for (const char* family : {"dense", "moe", "edge", "wide"}) {
    const fs::path model = kFamilies / family;
    ASSERT_FALSE(fs::exists(model / "tokenizer.json"));
    const Safetensors goldens = Safetensors::Open(model / "goldens.safetensors").value();
    for (const char* prompt : {"text.0", "text.1", "text.2"}) {
      const Ids ids = GoldenIds(goldens, std::string(prompt) + ".ids");
      const Ids greedy = GoldenIds(goldens, std::string(prompt) + ".greedy");
      const Reply reply = FromIds(json::serialize(json::value_from(ids)),
                                  {"--model", model.string(), "--temperature", "0", "--max-tokens",
                                   std::to_string(greedy.size()), "--ignore-eos"});
      EXPECT_EQ(reply.ids, greedy) << family << prompt;
      EXPECT_EQ(reply.text, "");
      EXPECT_EQ(reply.finish, "length");
      EXPECT_EQ(reply.prompt_tokens, static_cast<int>(ids.size()));
    }
  }
}

TEST(Generate, DraftsChangeNoGreedyToken) {
  const fs::path model = kFamilies / "edge";
  const Safetensors goldens = Safetensors::Open(model / "goldens.safetensors").value();
  const std::string ids = json::serialize(json::value_from(GoldenIds(goldens, "text.1.ids")));
  for (const char* num_drafts : {"0", "3"}) {
    EXPECT_EQ(FromIds(ids, {"--model", model.string(), "--temperature", "0", "--max-tokens", "12",
                            "--ignore-eos", "--speculative-num-steps", num_drafts})
                  .ids,
              GoldenIds(goldens, "text.1.greedy"));
  }
  for (const char* prompt : {"What is 12 + 30?", "Spell the word window.", "Tell me a story."}) {
    const auto with = [&](const char* num_drafts) {
      return GenerateJson({"--chat", "--prompt", prompt, "--temperature", "0", "--max-tokens", "48",
                           "--ignore-eos", "--speculative-num-steps", num_drafts});
    };
    const Reply plain = with("0"), drafted = with("3");
    EXPECT_EQ(plain.ids.size(), 48u);
    EXPECT_EQ(plain.ids, drafted.ids) << prompt;
    EXPECT_EQ(plain.text, drafted.text);
  }
  ScratchFolder folder;
  fs::copy(model, folder.path() / "alone");
  const ProgramResult result =
      Generate({"--model", (folder.path() / "alone").string(), "--prompt-token-ids", "[2]",
                "--speculative-num-steps", "3"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("--speculative-num-steps 3 needs a drafter"));
}

TEST(Generate, APromptIsRawTextAfterBos) {
  const std::vector<std::string> flags = {"--temperature", "0", "--max-tokens", "16",
                                          "--ignore-eos"};
  for (const std::string text : {"Hello", "two  words\nand a line", "<|turn>user\nHi<turn|>\n"}) {
    std::vector<std::string> args = flags;
    args.insert(args.begin(), {"--prompt", text});
    const Reply reply = GenerateJson(args);
    const std::string ids = Tokenize(text, {"--bos"});
    EXPECT_EQ(reply.prompt_tokens, CountOf(ids)) << text;
    EXPECT_EQ(reply.ids, FromIds(ids, flags).ids) << text;
    EXPECT_EQ(CountOf(Tokenize(text)), reply.prompt_tokens - 1);
  }
  EXPECT_EQ(GenerateJson({"--prompt", "", "--max-tokens", "1"}).prompt_tokens, 1);  // <bos> alone
  // A <bos> that is there is not put there again.
  EXPECT_EQ(GenerateJson({"--prompt", "<bos>Hello", "--max-tokens", "1"}).prompt_tokens,
            CountOf(Tokenize("Hello", {"--bos"})));
}

TEST(Generate, AChatIsTheTemplate) {
  const std::string question = "What is 12 + 30?";
  const Reply plain = FromIds(Tokenize(Render(question)), {"--temperature", "0"});
  const Reply chat = GenerateJson({"--chat", "--prompt", question, "--temperature", "0"});
  EXPECT_EQ(chat.ids, plain.ids);
  EXPECT_EQ(chat.prompt_tokens, plain.prompt_tokens);
  EXPECT_EQ(chat.text, "42");
  EXPECT_EQ(chat.finish, "stop");

  const Reply thinking = GenerateJson(
      {"--chat", "--thinking", "--prompt", question, "--temperature", "0", "--max-tokens", "200"});
  const Reply rendered = FromIds(Tokenize(Render(question, {"--thinking"})),
                                 {"--temperature", "0", "--max-tokens", "200"});
  EXPECT_EQ(thinking.ids, rendered.ids);
  EXPECT_EQ(thinking.prompt_tokens, rendered.prompt_tokens);
  EXPECT_NE(thinking.prompt_tokens, plain.prompt_tokens);

  const ProgramResult shown = Generate({"--chat", "--prompt", question, "--temperature", "0"});
  EXPECT_EQ(shown.exit_code, 0);
  EXPECT_EQ(shown.out, "42\n");
}

TEST(Generate, EndTokensCanBeIgnored) {
  const auto answer = [](std::vector<std::string> more) {
    more.insert(more.begin(), {"--chat", "--prompt", "What is 12 + 30?", "--temperature", "0"});
    return GenerateJson(std::move(more));
  };
  const Reply ended = answer({"--max-tokens", "30"});
  ASSERT_LT(ended.ids.size(), 30u);
  const Reply ignored = answer({"--max-tokens", "30", "--ignore-eos"});
  EXPECT_EQ(ignored.finish, "length");
  ASSERT_EQ(ignored.ids.size(), 30u);
  EXPECT_TRUE(std::equal(ended.ids.begin(), ended.ids.end(), ignored.ids.begin()));
  const Reply cut = answer({"--max-tokens", "1"});
  EXPECT_EQ(cut.finish, "length");
  EXPECT_EQ(cut.ids, Ids{ended.ids[0]});
}

TEST(Generate, ASeedRepeats) {
  const auto draw = [](const char* temperature, const char* seed) {
    return GenerateJson({"--prompt", "The ", "--max-tokens", "24", "--ignore-eos", "--temperature",
                         temperature, "--seed", seed})
        .ids;
  };
  const Ids seven = draw("2", "7");
  EXPECT_EQ(seven.size(), 24u);
  EXPECT_EQ(draw("2", "7"), seven);
  EXPECT_NE(draw("2", "8"), seven);
  EXPECT_EQ(draw("0", "7"), draw("0", "8"));
}

TEST(Generate, WrongFlagsAndValues) {
  for (const char* ids : {R"([2,"a"])", "[2", "{}", "[]", "[-1]", "[2.5]", "[2,4294967298]", "2"}) {
    const ProgramResult result = Generate({"--prompt-token-ids", ids});
    EXPECT_EQ(result.exit_code, 2) << ids;
    EXPECT_THAT(result.err, HasSubstr("--prompt-token-ids: ")) << ids;
    EXPECT_EQ(result.out, "");
  }
  for (const std::vector<std::string>& wrong : {std::vector<std::string>{"--temperature", "-1"},
                                                {"--temperature", "warm"},
                                                {"--max-tokens", "-1"},
                                                {"--max-tokens", "many"},
                                                {"--seed", "x"},
                                                {"--speculative-num-steps", "9"},
                                                {"--max-tokans", "3"},
                                                {"--prompt-token-ids", "[2]"}}) {
    std::vector<std::string> args = wrong;
    args.insert(args.begin(), {"--prompt", "a"});
    const ProgramResult result = Generate(args);
    EXPECT_EQ(result.exit_code, 2) << wrong[0];
    EXPECT_THAT(result.err, HasSubstr(wrong[0]));
  }
  const ProgramResult nothing = Generate({});
  EXPECT_EQ(nothing.exit_code, 2);
  EXPECT_THAT(nothing.err, HasSubstr("needs --prompt or --prompt-token-ids"));
}

TEST(Generate, WhatTheModelCannotDo) {
  const ProgramResult beyond = Generate({"--prompt-token-ids", "[2,1024]"});
  EXPECT_EQ(beyond.exit_code, 1);
  EXPECT_THAT(beyond.err, HasSubstr("ids from 0 to 1023"));
  const ProgramResult no_text =
      Generate({"--model", (kFamilies / "edge").string(), "--prompt", "Hello"});
  EXPECT_EQ(no_text.exit_code, 1);
  EXPECT_THAT(no_text.err, HasSubstr("has no tokenizer.json; give --prompt-token-ids"));
  const ProgramResult no_model = Generate({"--model", "/nonexistent", "--prompt", "Hello"});
  EXPECT_EQ(no_model.exit_code, 1);
  EXPECT_THAT(no_model.err, HasSubstr("/nonexistent"));
}

}  // namespace
}  // namespace lapidary
