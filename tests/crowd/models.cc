#include "tests/crowd/models.h"

#include <fmt/core.h>

#include <utility>

#include "kv/page_budget.h"
#include "model/gemma4.h"

namespace lapidary {
namespace {

constexpr std::string_view kFolded = "_folded";

bool Folds(const std::string& name) { return name.ends_with(kFolded); }
std::string Base(const std::string& name) {
  return Folds(name) ? name.substr(0, name.size() - kFolded.size()) : name;
}

std::unique_ptr<Checkpoint> Load(const std::string& name) {
  const std::string folder = name.starts_with("pebble") ? "/models/" : "/tests/data/reference/";
  auto checkpoint = LoadCheckpoint(LAPIDARY_SOURCE_DIR + folder + name, {});
  CHECK(checkpoint.ok(), "{}", checkpoint.error().message);
  return std::move(checkpoint).value();
}

}  // namespace

std::unique_ptr<Checkpoint> LoadTarget(const std::string& name) { return Load(Base(name)); }
std::unique_ptr<Checkpoint> LoadDrafter(const std::string& name) {
  return Load(Base(name) + "-assistant");
}

KvLayout LayoutOf(const std::string& name) {
  const ModelConfig config = LoadTarget(name)->config;
  return KvLayout::Make(KvShapes(config, Folds(name)), config.window, DType::kF32);
}

std::unique_ptr<Engine> MakeEngine(const std::string& name, EngineOptions options) {
  if (options.num_threads == 0) options.num_threads = 1;
  options.kv_fold = Folds(name) ? KvFold::kOn : KvFold::kOff;
  return std::make_unique<Engine>(
      LoadTarget(name), options.num_draft_tokens == 0 ? nullptr : LoadDrafter(name), options);
}

std::unique_ptr<Engine> MakeCalmEngine(const std::string& name, int max_model_len) {
  EngineOptions options;
  options.max_model_len = max_model_len;
  options.max_running_requests = 1;
  options.num_draft_tokens = 0;
  options.prefix_cache = options.overlap = options.fast_prefill = false;
  return MakeEngine(name, options);
}

uint64_t KvBytesFor(const std::string& name, int max_model_len, int max_drafts, int spare_slabs) {
  const KvLayout layout = LayoutOf(name);
  const int64_t slabs = KvFormula(layout, max_drafts).SlabsFor(max_model_len) + spare_slabs;
  return static_cast<uint64_t>(slabs * layout.slab_bytes);
}

void PrintGoal(const char* id, int64_t value, int64_t limit, bool pass) {
  fmt::print("GOAL {} {} {} {}\n", id, value, limit, pass ? "PASS" : "FAIL");
}

}  // namespace lapidary
