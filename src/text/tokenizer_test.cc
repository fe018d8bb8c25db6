#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <boost/json/value_to.hpp>

#include <random>

#include "io/json.h"
#include "io/mapped_file.h"
#include "tests/support/rounds.h"
#include "tests/support/tokenizer_dir.h"

namespace lapidary {
namespace {

const std::string kData = std::string(LAPIDARY_SOURCE_DIR) + "/tests/data/tokenizer";

Tokenizer LoadMini() {
  auto tokenizer = Tokenizer::Load(kData);
  CHECK(tokenizer.ok(), "{}", tokenizer.error().message);
  return std::move(tokenizer).value();
}

std::vector<json::object> Lines(const std::string& path) {
  const std::string content = ReadFile(path, 64 << 20).value();
  std::vector<json::object> lines;
  for (size_t begin = 0; begin < content.size();) {
    const size_t end = std::min(content.find('\n', begin), content.size());
    if (end > begin)
      lines.push_back(ParseJson(content.substr(begin, end - begin), path).value().as_object());
    begin = end + 1;
  }
  return lines;
}

TEST(Tokenizer, EqualsTheGoldensOfTheReference) {
  const Tokenizer tokenizer = LoadMini();
  int checked = 0;
  for (const json::object& line : Lines(kData + "/goldens.mini.jsonl")) {
    const std::string text(line.at("text").as_string());
    const auto expected = json::value_to<std::vector<int32_t>>(line.at("ids"));
    EXPECT_EQ(tokenizer.Encode(text), expected) << text;
    if (line.contains("skipped")) {
      EXPECT_EQ(tokenizer.Decode(expected, true), std::string(line.at("skipped").as_string()));
    }
    ++checked;
  }
  EXPECT_EQ(checked, 105);
}

// 2,048 entries, merges across spaces and newlines: no border can be proved, so whole texts are one
// piece. Made by tools/tokenizer with the reference package.
TEST(Tokenizer, EqualsTheReferenceWhenMergesCrossSpacesAndNewlines) {
  const auto tokenizer = Tokenizer::Load(kData + "/crossing");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  int checked = 0;
  for (const json::object& line : Lines(kData + "/crossing/goldens.jsonl")) {
    const std::string text(line.at("text").as_string());
    const auto expected = json::value_to<std::vector<int32_t>>(line.at("ids"));
    ASSERT_EQ(tokenizer.value().Encode(text), expected) << text;
    ASSERT_EQ(tokenizer.value().Decode(expected, true),
              std::string(line.at("skipped").as_string()));
    ++checked;
  }
  EXPECT_EQ(checked, 600);
}

// --tokenizer-dir names the folder with Gemma 4's own tokenizer.json.
TEST(Tokenizer, EqualsTheGoldensOfTheRealVocabulary) {
  const std::vector<json::object> lines = Lines(kData + "/goldens.gemma4.jsonl");
  ASSERT_EQ(lines.size(), 190u);
  if (TokenizerDir().empty())
    GTEST_SKIP() << lines.size() << " goldens skipped: no --tokenizer-dir";
  const auto tokenizer = Tokenizer::Load(TokenizerDir());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  ASSERT_EQ(tokenizer.value().vocab_size(), 262144);
  for (const json::object& line : lines)
    EXPECT_EQ(tokenizer.value().Encode(std::string(line.at("text").as_string())),
              json::value_to<std::vector<int32_t>>(line.at("ids")))
        << line.at("text");
}

TEST(Tokenizer, DecodeUndoesEncode) {
  const Tokenizer tokenizer = LoadMini();
  for (const std::string text :
       {"", " ", "a  b\n\n c\t", "naïve 你好 🙂 \xCC\x81", "<|turn>user\nhi<turn|>", "x<bos>y"})
    EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text), false), text);
}

TEST(Tokenizer, ControlStringsAsTextForgeNothing) {
  const Tokenizer tokenizer = LoadMini();
  const std::string text = "a<|turn>model\n<turn|><bos>";
  for (const int32_t id : tokenizer.Encode(text, Tokenizer::Specials::kAsText))
    EXPECT_FALSE(tokenizer.is_special(id));
  EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text, Tokenizer::Specials::kAsText), true), text);
  EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text), true), "amodel\n");
}

TEST(Tokenizer, BytesThatAreNotUtf8CountAsReplacementCharacters) {
  const Tokenizer tokenizer = LoadMini();
  EXPECT_EQ(tokenizer.Encode("a\xff\xfe"), tokenizer.Encode("a\xEF\xBF\xBD\xEF\xBF\xBD"));
  EXPECT_EQ(tokenizer.Encode("\xE4\xBD"), tokenizer.Encode("\xEF\xBF\xBD"));
}

// An independent definition: merge the adjacent pair of lowest rank, leftmost first, over the whole
// text.
std::vector<int32_t> SlowBpe(const std::vector<Bpe::Merge>& merges, std::vector<int32_t> ids) {
  for (;;) {
    size_t best_rank = merges.size(), best_at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i)
      for (size_t r = 0; r < best_rank; ++r)
        if (merges[r].left == ids[i] && merges[r].right == ids[i + 1]) {
          best_rank = r;
          best_at = i;
        }
    if (best_rank == merges.size()) return ids;
    ids[best_at] = merges[best_rank].result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best_at) + 1);
  }
}

TEST(Bpe, ShortAndLongPiecesEqualTheSlowDefinition) {
  std::mt19937 rng(3);
  const int num_rounds = Rounds(200);
  for (int round = 0; round < num_rounds; ++round) {
    std::vector<Bpe::Merge> merges;
    int32_t next = 4;
    for (int i = 0; i < 30; ++i, ++next) {
      const auto left = static_cast<int32_t>(rng() % static_cast<unsigned>(next)),
                 right = static_cast<int32_t>(rng() % static_cast<unsigned>(next));
      bool known = false;
      for (const auto& merge : merges)
        known = known || (merge.left == left && merge.right == right);
      if (!known) merges.push_back({left, right, next});
    }
    const Bpe bpe(merges);
    for (const size_t length : {0u, 1u, 2u, 10u, 24u, 25u, 100u, 300u}) {
      std::vector<int32_t> ids(length);
      for (int32_t& id : ids) id = static_cast<int32_t>(rng() % 4);
      std::vector<int32_t> fast = {-7};
      fast.insert(fast.end(), ids.begin(), ids.end());
      bpe.Apply(fast, 1);
      std::vector<int32_t> expected = SlowBpe(merges, ids);
      expected.insert(expected.begin(), -7);
      ASSERT_EQ(fast, expected);
    }
  }
}

bool IsValidUtf8(const std::string& text) { return ToValidUtf8(text) == text; }

TEST(Detokenizer, PiecesJoinToTheOneShotTextAndAreAlwaysValid) {
  const Tokenizer tokenizer = LoadMini();
  std::mt19937 rng(11);
  const int num_rounds = Rounds(50'000);
  for (int round = 0; round < num_rounds; ++round) {
    std::vector<int32_t> ids(rng() % 12);
    // Mostly byte tokens: that is where characters break.
    for (int32_t& id : ids) {
      id = static_cast<int32_t>(rng() % static_cast<unsigned>(tokenizer.vocab_size()));
      if (rng() % 2 != 0) id = *tokenizer.Find(fmt::format("<0x{:02X}>", 0x80 + rng() % 0x80));
    }
    const bool skip = rng() % 2 != 0;
    Detokenizer detokenizer(tokenizer, skip);
    std::string joined;
    for (const int32_t id : ids) {
      const std::string piece = detokenizer.Push(id);
      ASSERT_TRUE(IsValidUtf8(piece));
      joined += piece;
    }
    joined += detokenizer.Finish();
    ASSERT_EQ(joined, tokenizer.Decode(ids, skip));
  }
}

TEST(Utf8, MaximalSubparts) {
  // Unicode 15, table 3-11 and its neighbours.
  const std::string r(kReplacementCharacter);
  EXPECT_EQ(ToValidUtf8("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64"),
            "a" + r + r + r + "b" + r + "c" + r + r + "d");
  EXPECT_EQ(ToValidUtf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(ToValidUtf8("\xED\xA0\x80"), r + r + r);
  EXPECT_EQ(ToValidUtf8("\xF4\x90\x80\x80"), r + r + r + r);
}

TEST(Tokenizer, BadFilesAreRefusedByName) {
  const std::string good = ReadFile(kData + "/tokenizer.json", 1 << 20).value();
  const auto refused = [&](const std::string& from, const std::string& to) -> std::string {
    std::string changed = good;
    const size_t at = changed.find(from);
    CHECK(at != std::string::npos, "{}", from);
    changed.replace(at, from.size(), to);
    const auto result = Tokenizer::Parse(changed, "tokenizer.json");
    return result.ok() ? "accepted" : result.error().message;
  };
  EXPECT_THAT(refused("\"BPE\"", "\"WordPiece\""), testing::HasSubstr("model.type must be BPE"));
  EXPECT_THAT(refused("\"Replace\"", "\"NFC\""), testing::HasSubstr("normalizer"));
  EXPECT_THAT(refused("\"merges\"", "\"merge\""), testing::HasSubstr("model.merges is missing"));
  EXPECT_THAT(refused("\"MergedWithPrevious\"", "\"Removed\""), testing::Eq("accepted"))
      << "it never cuts, so how it would cut does not matter";
  EXPECT_THAT(refused("\"TemplateProcessing\"", "\"ByteLevel\""),
              testing::HasSubstr("post_processor"));
  EXPECT_THAT(refused("\"Fuse\"", "\"Strip\""), testing::HasSubstr("decoder"));
  EXPECT_THAT(refused("\"id\": 0", "\"id\": 9999999"), testing::HasSubstr("far beyond"));
  EXPECT_THAT(refused("\"id\": 0", "\"id\": -1"), testing::HasSubstr("whole number"));
  EXPECT_THAT(refused("\"<bos>\"", "5"), testing::HasSubstr("tokenizer.json"));
  for (size_t cut = 0; cut < good.size(); cut += good.size() / 50)
    EXPECT_FALSE(Tokenizer::Parse(good.substr(0, cut), "tokenizer.json").ok());
  EXPECT_FALSE(Tokenizer::Load("/nonexistent").ok());
}

// Three strings stand twice in the published vocabulary. The values are the tokenizers package's.
TEST(Tokenizer, OfAStringThatStandsTwiceTheLaterIdIsUsed) {
  std::string text =
      ReadFile(std::string(LAPIDARY_SOURCE_DIR) + "/tests/data/tokenizer/tokenizer.json", 1 << 20)
          .value();
  const std::string entry = "\"a\": 270";
  ASSERT_NE(text.find(entry), std::string::npos);
  text.replace(text.find(entry), entry.size(), entry + ", \"a\": 383");
  const auto tokenizer = Tokenizer::Parse(text, "tokenizer.json");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  EXPECT_THAT(tokenizer.value().Encode("a b"), testing::ElementsAre(383, 267, 271));
  EXPECT_THAT(tokenizer.value().Encode("ab aab"), testing::ElementsAre(351, 267, 348, 271));
  EXPECT_EQ(tokenizer.value().Decode(std::vector<int32_t>{270, 383}, false), "a");
  EXPECT_EQ(tokenizer.value().vocab_size(), 384);
}

}  // namespace
}  // namespace lapidary
