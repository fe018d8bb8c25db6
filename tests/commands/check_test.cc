#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "io/json.h"
#include "tests/commands/running_server.h"
#include "tests/program.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kSource = LAPIDARY_SOURCE_DIR;

struct Checked {
  int exit_code;
  json::object report;
  std::string refused;  // all sentences
};

Checked Check(std::vector<std::string> args) {
  args.insert(args.begin(), {"check", "--json"});
  const ProgramResult result = RunProgram(LAPIDARY_PROGRAM, args);
  Checked checked{result.exit_code, json::parse(result.out).as_object(), ""};
  for (const json::value& sentence : checked.report.at("refused").as_array())
    checked.refused += std::string(sentence.as_string()) + "\n";
  return checked;
}

class CheckTest : public testing::Test {
 protected:
  CheckTest() : root_(fs::path(testing::TempDir()) / "check_test") {
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  ~CheckTest() override { fs::remove_all(root_); }
  // A copy of a small random checkpoint with the shipped model's tokenizer.
  fs::path Copy(const std::string& name) const {
    fs::copy(kSource / "tests/data/reference" / name, root_ / name);
    return root_ / name;
  }
  fs::path root_;
};

TEST_F(CheckTest, ShippedModelIsFine) {
  const Checked checked = Check({"--read-weights"});
  EXPECT_EQ(checked.exit_code, 0) << checked.refused;
  EXPECT_TRUE(checked.report.at("ok").as_bool());
  const json::object& model = checked.report.at("model").as_object();
  EXPECT_THAT(std::string(model.at("tensors").as_string()), HasSubstr("all numbers finite"));
  EXPECT_THAT(std::string(model.at("drafter").as_string()),
              HasSubstr("pebble-assistant, beside the model: fits"));
  EXPECT_EQ(model.at("template"), "chat_template.jinja is edge");
  const json::object& machine = checked.report.at("machine").as_object();
  EXPECT_GE(machine.at("num_cores").to_number<int>(), 1);
  EXPECT_GE(machine.at("memory_bytes").to_number<uint64_t>(), uint64_t{1} << 28);
  EXPECT_GE(machine.at("max_open_files").to_number<uint64_t>(), 16u);
}

// By its text alone, white space at its end apart; serve says the same.
TEST_F(CheckTest, TemplateThatIsNotKnownIsSaid) {
  const fs::path shipped = kSource / "models/pebble", model = root_ / "model";
  fs::create_directory(model);
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"})
    fs::create_symlink(shipped / name, model / name);
  std::ifstream file(shipped / "chat_template.jinja");
  const std::string known(std::istreambuf_iterator<char>(file), {});
  std::string changed = known;
  changed[changed.find("user")] = 'U';
  const auto expect = [&](const std::string& text, const std::string& sentence) {
    std::ofstream(model / "chat_template.jinja") << text;
    EXPECT_EQ(Check({model.string()}).report.at("model").at("template").as_string(), sentence);
    const RunningServer server({"--model", model.string()});
    EXPECT_THAT(server.program().so_far().err, HasSubstr(sentence + "\n"));
  };
  expect(known + " \t\r\n\n", "chat_template.jinja is edge");
  expect(changed, "chat_template.jinja is not known, using the nearest: edge");
  expect("", "chat_template.jinja is not known, using the nearest: edge");
  fs::remove(model / "chat_template.jinja");
  EXPECT_EQ(Check({model.string()}).report.at("model").at("template"),
            "no chat_template.jinja, using edge");
  // Without per-layer embeddings the nearest is the other form.
  EXPECT_EQ(Check({Copy("dense").string()}).report.at("model").at("template"),
            "no chat_template.jinja, using thinkprefill");
}

TEST_F(CheckTest, LinesSayTheSame) {
  const ProgramResult result = RunProgram(LAPIDARY_PROGRAM, {"check"});
  EXPECT_EQ(result.exit_code, 0);
  for (const char* name : {"\ncpu ", "\nmemory ", "\ngpu ", "\nfiles ", "\nmodel ", "\ntensors ",
                           "\ntokenizer ", "\ntemplate ", "\ndrafter ", "\nok "})
    EXPECT_THAT("\n" + result.out, HasSubstr(name));
}

TEST_F(CheckTest, NamesWhatWouldBeRefused) {
  const Checked unified = Check({(kSource / "tests/data/configs/gemma-4-12B-it").string()});
  EXPECT_EQ(unified.exit_code, 1);
  EXPECT_THAT(unified.refused, HasSubstr("12B Unified"));

  const Checked no_text = Check({Copy("edge").string()});
  EXPECT_EQ(no_text.exit_code, 1);
  EXPECT_THAT(no_text.refused, HasSubstr("has no tokenizer.json"));
  EXPECT_FALSE(no_text.report.at("model").at("tensors").as_string().empty());

  const Checked assistant = Check({Copy("edge-assistant").string()});
  EXPECT_EQ(assistant.exit_code, 1);
  EXPECT_THAT(assistant.refused, HasSubstr("is an assistant"));

  EXPECT_THAT(Check({(root_ / "nothing").string()}).refused, HasSubstr("no model at"));
}

TEST_F(CheckTest, NamesABrokenFile) {
  const fs::path file = Copy("dense") / "model.safetensors";
  fs::resize_file(file, fs::file_size(file) - 1000);
  const Checked cut = Check({file.parent_path().string()});
  EXPECT_EQ(cut.exit_code, 1);
  EXPECT_THAT(cut.refused, HasSubstr("model.safetensors"));

  fs::copy_file(kSource / "tests/data/reference/moe/config.json", root_ / "dense/config.json",
                fs::copy_options::overwrite_existing);
  fs::copy_file(kSource / "tests/data/reference/dense/model.safetensors", file,
                fs::copy_options::overwrite_existing);
  EXPECT_THAT(Check({file.parent_path().string()}).refused, HasSubstr("tensor '"));
}

TEST_F(CheckTest, DrafterThatWasNamedMustFit) {
  const std::string other = (kSource / "tests/data/reference/wide-assistant").string();
  const Checked checked = Check({"--draft-model", other});
  EXPECT_EQ(checked.exit_code, 1);
  EXPECT_THAT(Check({"--draft-model", (root_ / "none").string()}).refused,
              HasSubstr("no model at"));
}

}  // namespace
}  // namespace lapidary
