// The models that the tests of this folder run: pebble, and a small random one of each family, one
// of them with its cache folded too.
#ifndef LAPIDARY_TESTS_CROWD_MODELS_H_
#define LAPIDARY_TESTS_CROWD_MODELS_H_

#include <memory>
#include <string>

#include "engine/engine.h"
#include "kv/layout.h"
#include "model/loader.h"

namespace lapidary {

inline constexpr const char* kFamilies[] = {"dense", "moe", "edge", "wide"};
inline constexpr const char* kModels[] = {"dense", "moe", "moe_folded", "edge", "wide", "pebble"};

std::unique_ptr<Checkpoint> LoadTarget(const std::string& name);
std::unique_ptr<Checkpoint> LoadDrafter(const std::string& name);
// Of an engine that MakeEngine makes.
KvLayout LayoutOf(const std::string& name);

// One thread; its drafter is loaded unless num_draft_tokens is 0.
std::unique_ptr<Engine> MakeEngine(const std::string& name, EngineOptions options);

// Requests one at a time, without drafts, prefix cache, overlap or early stop of prompt rows: what
// a request gives alone.
std::unique_ptr<Engine> MakeCalmEngine(const std::string& name, int max_model_len);

// kv_bytes in which a sequence of max_model_len fits beside this many spare slabs.
uint64_t KvBytesFor(const std::string& name, int max_model_len, int max_drafts, int spare_slabs);

// Of a test that holds a promise of this number: value of limit.
void PrintGoal(const char* id, int64_t value, int64_t limit, bool pass);

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_CROWD_MODELS_H_
