#include "tests/crowd/models.h"

#include <fmt/core.h>

#include <utility>

#include "kv/page_budget.h"
#include "model/gemma4.h"

namespace lapidary {
namespace {

std::unique_ptr<Checkpoint> Load(const std::string& name) {
  const std::string folder = name.starts_with("pebble") ? "/models/" : "/tests/data/reference/";
  auto checkpoint = LoadCheckpoint(LAPIDARY_SOURCE_DIR + folder + name, {});
  CHECK(checkpoint.ok(), "{}", checkpoint.error().message);
  return std::move(checkpoint).value();
}

}  // namespace

std::unique_ptr<Checkpoint> LoadTarget(const std::string& name) { return Load(name); }
std::unique_ptr<Checkpoint> LoadDrafter(const std::string& name) {
  return Load(name + "-assistant");
}

KvLayout LayoutOf(const ModelConfig& config) {
  return KvLayout::Make(KvShapes(config), config.window, DType::kF32);
}

std::unique_ptr<Engine> MakeEngine(const std::string& name, EngineOptions options) {
  if (options.num_threads == 0) options.num_threads = 1;
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
  const KvLayout layout = LayoutOf(LoadTarget(name)->config);
  const int64_t slabs = KvFormula(layout, max_drafts).SlabsFor(max_model_len) + spare_slabs;
  return static_cast<uint64_t>(slabs * layout.slab_bytes);
}

void PrintGoal(const char* id, int64_t value, int64_t limit, bool pass) {
  fmt::print("GOAL {} {} {} {}\n", id, value, limit, pass ? "PASS" : "FAIL");
}

}  // namespace lapidary
