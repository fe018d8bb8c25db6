// `lapidary verify` on the small checkpoints of tests/data/reference, whose expected values are
// transformers', and on values that were changed.
#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <numeric>
#include <utility>

#include "io/json.h"
#include "io/safetensors.h"
#include "tests/checkpoints/tiny_checkpoint.h"
#include "tests/program.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ContainsRegex;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

const fs::path kReference = fs::path(LAPIDARY_SOURCE_DIR) / "tests/data/reference";

// A goldens file in memory, to be changed and written anew.
class EditedGoldens {
 public:
  explicit EditedGoldens(const std::string& family) {
    const Safetensors file = Safetensors::Open(kReference / family / "goldens.safetensors").value();
    for (const auto& [name, entry] : file.tensors()) {
      const auto bytes = file.bytes(entry);
      tensors_.push_back({name, entry.dtype, entry.shape,
                          std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())});
    }
  }
  void Add(RawTensor tensor) { tensors_.push_back(std::move(tensor)); }
  void KeepOnly(const std::string& prefix) {
    std::erase_if(tensors_, [&](const RawTensor& t) { return !t.name.starts_with(prefix); });
  }
  RawTensor& At(const std::string& name) {
    const auto found = std::find_if(tensors_.begin(), tensors_.end(),
                                    [&](const RawTensor& t) { return t.name == name; });
    CHECK(found != tensors_.end(), "{}", name);
    return *found;
  }
  // Of a vector: its first elements alone.
  void Cut(const std::string& name, int64_t count) {
    At(name).shape = {count};
    At(name).data.resize(static_cast<size_t>(count) * 4);
  }
  template <typename T>
  std::vector<T> Values(const std::string& name) {
    const std::string& data = At(name).data;
    std::vector<T> values(data.size() / sizeof(T));
    std::memcpy(values.data(), data.data(), data.size());
    return values;
  }
  template <typename T>
  void Set(const std::string& name, size_t index, T value) {
    std::memcpy(At(name).data.data() + index * sizeof(T), &value, sizeof(T));
  }
  void Change(const std::string& name, size_t index, float by) {
    Set(name, index, Values<float>(name)[index] + by);
  }
  std::string bytes() const { return SafetensorsBytes(tensors_); }

 private:
  std::vector<RawTensor> tensors_;
};

// The best two of a row of V golden logits and the last of all.
struct Ranked {
  Ranked(const std::vector<float>& logits, int64_t row, int64_t vocab_size) {
    const auto first = logits.begin() + row * vocab_size;
    std::vector<int32_t> order(static_cast<size_t>(vocab_size));
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](int32_t a, int32_t b) { return first[a] > first[b]; });
    best = order[0], second = order[1], last = order.back();
    gap = first[best] - first[second];
  }
  int32_t best, second, last;
  float gap;
};

class VerifyTest : public testing::Test {
 protected:
  static ProgramResult Verify(std::vector<std::string> args) {
    args.insert(args.begin(), "verify");
    return RunProgram(LAPIDARY_PROGRAM, args);
  }
  static ProgramResult VerifyFolder(const fs::path& model, std::vector<std::string> more = {}) {
    more.insert(more.begin(),
                {"--model", model.string(), "--goldens", (model / "goldens.safetensors").string()});
    return Verify(std::move(more));
  }
  ProgramResult VerifyEdited(const std::string& family, const EditedGoldens& goldens,
                             std::vector<std::string> more = {}) const {
    const fs::path folder = folder_.Write("goldens", {{"edited.safetensors", goldens.bytes()}});
    more.insert(more.begin(), {"--model", (kReference / family).string(), "--goldens",
                               (folder / "edited.safetensors").string()});
    return Verify(std::move(more));
  }
  // A copy that has no drafter beside it.
  fs::path Copy(const std::string& name) const {
    fs::remove_all(folder_.path() / name);
    fs::copy(kReference / name, folder_.path() / name);
    return folder_.path() / name;
  }
  // The same with another value in config.json's text_config.
  fs::path CopyWith(const std::string& name, const std::string& key, json::value value) const {
    const fs::path copy = Copy(name);
    std::ifstream in(copy / "config.json");
    json::value config = json::parse(std::string(std::istreambuf_iterator<char>(in), {}));
    config.at("text_config").as_object().at(key) = std::move(value);
    std::ofstream(copy / "config.json") << json::serialize(config);
    return copy;
  }
  ScratchFolder folder_;
};

TEST_F(VerifyTest, EveryFamilyEqualsTransformers) {
  for (const char* family : {"dense", "moe", "edge", "wide"}) {
    const ProgramResult result = VerifyFolder(kReference / family);
    EXPECT_EQ(result.exit_code, 0) << family << result.err;
    // Three prompts with logits, hidden and greedy; each with two drafts of logits and tokens.
    EXPECT_THAT(result.out, EndsWith("\n21 passed, 0 failed, 0 skipped\n")) << family;
    EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 21 + 1);
    for (const char* name : {"text.0.logits", "text.1.hidden", "text.2.greedy",
                             "draft.0.Lm1.logits", "draft.2.Lm2.tokens"})
      EXPECT_THAT(result.out, HasSubstr(std::string("ok    ") + name + " "));
  }
}

TEST_F(VerifyTest, DraftsAreSkippedWithoutADrafter) {
  const fs::path alone = Copy("edge");
  const ProgramResult skipped = VerifyFolder(alone);
  EXPECT_EQ(skipped.exit_code, 0) << skipped.err;
  EXPECT_THAT(skipped.out,
              AllOf(EndsWith("\n9 passed, 0 failed, 6 skipped\n"), Not(HasSubstr("draft."))));

  const std::string drafter = (kReference / "edge-assistant").string();
  EXPECT_THAT(VerifyFolder(alone, {"--draft-model", drafter}).out,
              EndsWith("\n21 passed, 0 failed, 0 skipped\n"));
  Copy("edge-assistant");
  EXPECT_THAT(VerifyFolder(alone).out, EndsWith("\n21 passed, 0 failed, 0 skipped\n"));

  const ProgramResult other =
      VerifyFolder(alone, {"--draft-model", (kReference / "dense-assistant").string()});
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_NE(other.err, "");
  const ProgramResult none = VerifyFolder(alone, {"--draft-model", "/nonexistent"});
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.err, HasSubstr("/nonexistent"));
}

TEST_F(VerifyTest, EntriesOfMediaAreCountedAsSkipped) {
  EditedGoldens goldens("edge");
  goldens.Add({"image.0.ids", "I32", {1}, std::string(4, '\0')});
  goldens.Add({"image.0.logits", "F32", {1, 256}, std::string(1024, '\0')});
  goldens.Add({"image.1.ids", "I32", {1}, std::string(4, '\0')});
  goldens.Add({"audio.0.samples", "F32", {2}, std::string(8, '\0')});
  goldens.Add({"image.0.pixels", "U8", {2, 2, 3}, std::string(12, '\0')});
  const ProgramResult result = VerifyEdited("edge", goldens);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, EndsWith("\n21 passed, 0 failed, 3 skipped\n"));
}

TEST_F(VerifyTest, AChangedValueFailsAndItsPlaceIsNamed) {
  // Rows of 256 logits and 32 hidden values; what a right value differs by changes the last digit.
  const std::pair<const char*, size_t> places[] = {
      {"text.1.logits", 3 * 256 + 7}, {"text.2.hidden", 69 * 32 + 31}, {"draft.1.Lm2.logits", 256}};
  const char* const lines[] = {"text.1.logits +max .d. 2.(49|50).e-01 at .3, 7., limit 0.001",
                               "text.2.hidden +max .d. 2.(49|50).e-01 at .69, 31., limit 0.001",
                               "draft.1.Lm2.logits +max .d. 2.(49|50).e-01 at .1, 0., limit 0.001"};
  for (size_t i = 0; i < std::size(places); ++i) {
    EditedGoldens goldens("moe");
    goldens.Change(places[i].first, places[i].second, 0.25f);
    const ProgramResult result = VerifyEdited("moe", goldens);
    EXPECT_EQ(result.exit_code, 1) << places[i].first;
    EXPECT_THAT(result.out, AllOf(ContainsRegex(std::string("FAIL  ") + lines[i]),
                                  EndsWith("\n20 passed, 1 failed, 0 skipped\n")));
    const ProgramResult allowed = VerifyEdited("moe", goldens, {"--max-abs", "0.3"});
    EXPECT_EQ(allowed.exit_code, 0);
    EXPECT_THAT(allowed.out, EndsWith("\n21 passed, 0 failed, 0 skipped\n"));
  }
  EditedGoldens goldens("moe");
  goldens.Set("text.1.logits", 2 * 256 + 9, std::numeric_limits<float>::quiet_NaN());
  const ProgramResult result = VerifyEdited("moe", goldens, {"--max-abs", "100"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, ContainsRegex("FAIL  text.1.logits +not finite at .2, 9."));
}

TEST_F(VerifyTest, NoFloatIsThatNear) {
  const ProgramResult result = VerifyFolder(kReference / "edge", {"--max-abs", "1e-9"});
  EXPECT_EQ(result.exit_code, 1);
  // Of each prompt logits, hidden and both drafts' logits.
  EXPECT_THAT(result.out, EndsWith("\n9 passed, 12 failed, 0 skipped\n"));
}

// A prompt in chunks gives the same bits as at once.
TEST_F(VerifyTest, ChunksChangeNoFigure) {
  const std::string at_once = VerifyFolder(kReference / "wide").out;
  for (const char* chunk : {"1", "7", "64"}) {
    const ProgramResult result = VerifyFolder(kReference / "wide", {"--chunk", chunk});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out, at_once) << chunk;
  }
}

// `verify` is given by which share of a token's margin its logits are away, and which share of it
// is the limit of differences; `line` begins what is said of the token, one of `checks`.
template <typename Verify>
void ExpectTieRule(const Verify& verify, const std::string& line, int checks) {
  const auto expect = [&](float share, float limit, int exit_code, const std::string& said,
                          int failed) {
    const ProgramResult result = verify(share, limit);
    EXPECT_EQ(result.exit_code, exit_code) << result.out;
    EXPECT_THAT(result.out, AllOf(ContainsRegex(said),
                                  EndsWith(fmt::format("\n{} passed, {} failed, 0 skipped\n",
                                                       checks - failed, failed))));
  };
  expect(0.51f, 1, 0, "ok    " + line + ", 1 ties, 0 wrong", 0);
  expect(0.49f, 1, 1, "FAIL  " + line + ", 0 ties, 1 wrong", 1);
  // A difference beyond the limit excuses nothing.
  expect(0.51f, 0.4f, 1, "FAIL  " + line + ", 0 ties, 1 wrong", 2);
}

// Prompt 0 alone with its first greedy token, which is exchanged for the runner-up; the logits are
// `share` of the margin away at the place that matters least.
TEST_F(VerifyTest, ATokenWithinTwiceTheDifferenceIsATie) {
  const auto verify = [&](float share, float limit) {
    EditedGoldens goldens("edge");
    goldens.KeepOnly("text.0.");
    goldens.Cut("text.0.greedy", 1);
    goldens.Cut("text.0.greedy_margin", 1);
    const Ranked ranked(goldens.Values<float>("text.0.logits"), 0, 256);
    const float margin = goldens.Values<float>("text.0.greedy_margin")[0];
    EXPECT_EQ(goldens.Values<int32_t>("text.0.greedy")[0], ranked.best);
    EXPECT_NEAR(margin, ranked.gap, 1e-6);
    goldens.Set("text.0.greedy", 0, ranked.second);
    goldens.Change("text.0.logits", static_cast<size_t>(ranked.last), -share * margin);
    return VerifyEdited("edge", goldens, {"--max-abs", std::to_string(limit * margin)});
  };
  ExpectTieRule(verify, "text.0.greedy +1 tokens", 3);
}

// The same with the last token of a burst, whose margin is the gap of its golden logits.
TEST_F(VerifyTest, ADraftWithinTwiceTheDifferenceIsATie) {
  const auto verify = [&](float share, float limit) {
    EditedGoldens goldens("dense");
    const Ranked ranked(goldens.Values<float>("draft.1.Lm2.logits"), 2, 256);
    EXPECT_EQ(goldens.Values<int32_t>("draft.1.Lm2.tokens")[2], ranked.best);
    goldens.Set("draft.1.Lm2.tokens", 2, ranked.second);
    goldens.Change("draft.1.Lm2.logits", 2 * 256 + static_cast<size_t>(ranked.last),
                   -share * ranked.gap);
    return VerifyEdited("dense", goldens, {"--max-abs", std::to_string(limit * ranked.gap)});
  };
  ExpectTieRule(verify, "draft.1.Lm2.tokens +3 tokens", 21);
}

TEST_F(VerifyTest, AnotherConfigGivesOtherValues) {
  for (const auto& [key, value] :
       {std::pair<const char*, json::value>{"final_logit_softcapping", 20.0},
        {"rms_norm_eps", 0.01}}) {
    const ProgramResult result = VerifyFolder(CopyWith("dense", key, value));
    EXPECT_EQ(result.exit_code, 1) << key;
    EXPECT_THAT(result.out, HasSubstr("FAIL  text.0.logits")) << key << result.err;
  }
}

TEST_F(VerifyTest, ABrokenCheckpointIsRefusedByName) {
  const auto refused = [](const fs::path& model) {
    const ProgramResult result = VerifyFolder(model);
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(result.out, "");
    return result.err;
  };
  EXPECT_THAT(refused(CopyWith("dense", "vocab_size", 128)), HasSubstr("embed_tokens.weight"));
  EXPECT_THAT(refused(CopyWith("dense", "num_hidden_layers", "six")),
              HasSubstr("num_hidden_layers"));
  EXPECT_THAT(refused(folder_.path() / "nothing"), HasSubstr("nothing"));
  EXPECT_THAT(refused(Copy("dense-assistant")), HasSubstr("--model is an assistant"));
  fs::path copy = Copy("dense");
  fs::resize_file(copy / "model.safetensors", 100'000);
  EXPECT_THAT(refused(copy), HasSubstr("model.safetensors"));
  copy = Copy("dense");
  std::ofstream(copy / "config.json") << "{";
  EXPECT_THAT(refused(copy), HasSubstr("config.json"));
}

TEST_F(VerifyTest, BrokenGoldensAreRefusedByName) {
  const auto refused = [&](const EditedGoldens& goldens) {
    const ProgramResult result = VerifyEdited("dense", goldens);
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(result.out, "");
    return result.err;
  };
  EditedGoldens empty("dense"), beyond("dense"), short_row("dense"), no_margin("dense");
  empty.KeepOnly("draft.");
  EXPECT_THAT(refused(empty), HasSubstr("no text.P.ids entry"));
  beyond.Set("text.1.greedy", 4, int32_t{256});
  EXPECT_THAT(refused(beyond), HasSubstr("text.1.greedy holds 256 of 256"));
  short_row.At("text.1.logits").shape = {50, 128};
  EXPECT_THAT(refused(short_row), HasSubstr("text.1.logits must be F32 [25, 256]"));
  no_margin.Cut("text.2.greedy_margin", 11);
  EXPECT_THAT(refused(no_margin), HasSubstr("text.2.greedy_margin must be F32 [12]"));

  const fs::path copy = Copy("dense");
  fs::resize_file(copy / "goldens.safetensors", 100'000);
  EXPECT_THAT(VerifyFolder(copy).err, HasSubstr("goldens.safetensors"));
  fs::remove(copy / "goldens.safetensors");
  const ProgramResult gone = VerifyFolder(copy);
  EXPECT_EQ(gone.exit_code, 1);
  EXPECT_THAT(gone.err, HasSubstr((copy / "goldens.safetensors").string()));
}

TEST_F(VerifyTest, WrongFlags) {
  const std::string model = (kReference / "dense").string();
  EXPECT_EQ(Verify({"--goldens", "x"}).exit_code, 2);
  const ProgramResult no_goldens = Verify({"--model", model});
  EXPECT_EQ(no_goldens.exit_code, 2);
  EXPECT_THAT(no_goldens.err, HasSubstr("--goldens is required"));
  for (const std::vector<std::string>& wrong : {std::vector<std::string>{"--goldenz", "x"},
                                                {"--max-abs", "x"},
                                                {"--max-abs", "-1"},
                                                {"--chunk", "-1"},
                                                {"--chunk", "1.5"},
                                                {"--dtype", "float16"},
                                                {"--backend", "tpu"}}) {
    const ProgramResult result = VerifyFolder(kReference / "dense", wrong);
    EXPECT_EQ(result.exit_code, 2) << wrong[0];
    EXPECT_THAT(result.err, HasSubstr(wrong[0]));
  }
}

}  // namespace
}  // namespace lapidary
