#include "app/model/find_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/result.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kConfigs = fs::path(LAPIDARY_SOURCE_DIR) / "tests/data/configs";

class FindModelTest : public testing::Test {
 protected:
  FindModelTest() : root_(fs::path(testing::TempDir()) / "find_model_test") {
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  ~FindModelTest() override { fs::remove_all(root_); }

  // A folder with one of the published config.json files.
  fs::path Put(const fs::path& dir, const std::string& name) const {
    fs::create_directories(root_ / dir);
    fs::copy_file(kConfigs / name / "config.json", root_ / dir / "config.json",
                  fs::copy_options::overwrite_existing);
    return root_ / dir;
  }
  void Write(const fs::path& file, const std::string& text) const {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  DrafterChoice Drafter(const fs::path& dir) const {
    const auto config = ReadModelConfig(dir);
    if (!config.ok()) throw StartupError(config.error().message);
    return FindDrafter(dir, config.value(), root_ / "hub");
  }

  fs::path root_;
};

std::string ErrorOf(const std::function<void()>& what) {
  try {
    what();
  } catch (const StartupError& error) {
    return error.what();
  }
  return "";
}

TEST_F(FindModelTest, SnapshotThatMainNamesElseTheNewest) {
  const fs::path repository = "hub/models--org--name";
  const fs::path old_one = Put(repository / "snapshots/aaa", "gemma-4-E2B-it");
  const fs::path new_one = Put(repository / "snapshots/bbb", "gemma-4-E2B-it");
  Put(repository / "snapshots/ccc", "gemma-4-E2B-it");
  fs::remove(root_ / repository / "snapshots/ccc/config.json");  // a download that was broken off
  const auto now = fs::file_time_type::clock::now();
  fs::last_write_time(old_one, now - std::chrono::hours(2));
  fs::last_write_time(new_one, now - std::chrono::hours(1));
  EXPECT_EQ(FindInHubCache(root_ / "hub", "org/name"), new_one);
  Write(repository / "refs/main", "aaa\n");
  EXPECT_EQ(FindInHubCache(root_ / "hub", "org/name"), old_one);
  Write(repository / "refs/main", "gone");
  EXPECT_EQ(FindInHubCache(root_ / "hub", "org/name"), new_one);
  Write(repository / "refs/main", "../../../elsewhere");
  EXPECT_EQ(FindInHubCache(root_ / "hub", "org/name"), new_one);
  EXPECT_EQ(FindModel("org/name", root_ / "hub"), new_one);
}

TEST_F(FindModelTest, OnlyOrgAndNameAreLookedUp) {
  Put("hub/models--a--b/snapshots/x", "gemma-4-E2B-it");
  for (const char* name : {"a", "a/", "/b", "a/b/c", "a//b", ""})
    EXPECT_FALSE(FindInHubCache(root_ / "hub", name)) << name;
  EXPECT_FALSE(FindInHubCache("", "a/b"));
}

TEST_F(FindModelTest, ErrorsSayWhatWasTried) {
  EXPECT_THAT(ErrorOf([&] { FindModel("org/none", root_ / "hub"); }),
              HasSubstr("neither a folder with a config.json nor in the Hub cache"));
  fs::create_directories(root_ / "empty");
  EXPECT_THAT(ErrorOf([&] { FindModel((root_ / "empty").string(), root_ / "hub"); }),
              HasSubstr("is a folder without a config.json"));
}

TEST_F(FindModelTest, ShippedModelIsBesideTheProgramNeverInTheWorkingDirectory) {
  Put("a/models/pebble", "gemma-4-E2B-it");
  Put("b/share/lapidary/models/pebble", "gemma-4-E2B-it");
  EXPECT_EQ(FindShippedModel(root_ / "a/build/lapidary"), root_ / "a/models/pebble");
  EXPECT_EQ(FindShippedModel(root_ / "b/bin/lapidary"), root_ / "b/share/lapidary/models/pebble");
  EXPECT_THAT(ErrorOf([&] { FindShippedModel(root_ / "c/bin/lapidary"); }),
              HasSubstr("--model DIR"));
  // What an unreadable /proc gives, in a folder that does hold models/pebble.
  const fs::path before = fs::current_path();
  fs::current_path(root_ / "a");
  EXPECT_THAT(ErrorOf([] { FindShippedModel(""); }), HasSubstr("/proc/self/exe"));
  fs::current_path(before);
}

TEST_F(FindModelTest, DrafterBesideTheModel) {
  const auto found = Drafter(kConfigs / "gemma-4-E2B-it/");
  ASSERT_TRUE(found.dir) << found.reason;
  EXPECT_EQ(found.dir.value_or("").filename(), "gemma-4-E2B-it-assistant");
  EXPECT_EQ(found.reason, "beside the model");
  const fs::path dir = Put("target", "gemma-4-E4B-it");
  EXPECT_THAT(Drafter(dir).reason, HasSubstr("none: no target-assistant beside the model"));
}

TEST_F(FindModelTest, DrafterIsKnownByItsArchitecture) {
  const fs::path dir = Put("target", "gemma-4-E4B-it");
  Put("target-assistant", "gemma-4-E2B-it");
  EXPECT_FALSE(Drafter(dir).dir);
  EXPECT_THAT(Drafter(dir).reason, HasSubstr("is not an assistant's"));
  Put("target-assistant", "gemma-4-31B-it-assistant");
  EXPECT_FALSE(Drafter(dir).dir);
  EXPECT_THAT(Drafter(dir).reason, HasSubstr("is not used"));
  Put("target-assistant", "gemma-4-E4B-it-assistant");
  EXPECT_EQ(Drafter(dir).dir, root_ / "target-assistant");
}

TEST_F(FindModelTest, DrafterInTheHubCache) {
  const fs::path cached = Put("hub/models--g--small/snapshots/x", "gemma-4-E4B-it");
  const fs::path drafter =
      Put("hub/models--g--small-assistant/snapshots/y", "gemma-4-E4B-it-assistant");
  EXPECT_EQ(Drafter(cached).dir, drafter);
  EXPECT_EQ(Drafter(cached).reason, "in the Hub cache");
  EXPECT_EQ(Drafter(Put("elsewhere/small", "gemma-4-E4B-it")).dir, drafter);
  EXPECT_FALSE(Drafter(Put("elsewhere/other", "gemma-4-E4B-it")).dir);
  // One beside the model that does not fit does not hide one in the cache that does.
  Put("elsewhere/small-assistant", "gemma-4-31B-it-assistant");
  EXPECT_EQ(Drafter(root_ / "elsewhere/small").dir, drafter);
}

}  // namespace
}  // namespace lapidary
