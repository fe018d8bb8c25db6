#include "workload.h"

#include <algorithm>

namespace lapidary {
namespace {

Scenario ScenarioOf(uint64_t seed) {
  switch (seed % 16) {
    case 3:
      return Scenario::kOvergrown;
    case 7:
      return Scenario::kCrowd;
    case 15:
      return Scenario::kOvercommit;
    default:
      return Scenario::kMixed;
  }
}

}  // namespace

Workload::Workload(uint64_t seed, std::mt19937_64& rng) : rng_(rng), scenario_(ScenarioOf(seed)) {
  // Layouts of the models in small, and degenerate ones.
  static const std::vector<std::vector<KvLayerShape>> kLayers = {
      {{false, true, 2, 32}, {true, true, 1, 32}},                        // 1 sliding = 2 full
      {{false, true, 2, 32}, {false, true, 3, 32}, {true, true, 2, 32}},  // 2 sliding = 5 full
      {{false, true, 10, 32}, {true, true, 1, 32}},                       // 1 sliding = 10 full
      {{false, true, 1, 32}},
      {{true, true, 1, 32}},
      {{false, true, 1, 32}, {true, true, 3, 32}},  // a full page is three sliding ones
  };
  const int windows[] = {64, 65, 100, 128, 63, 200, 2};
  layout_ = KvLayout::Make(kLayers[Below(kLayers.size())], windows[Below(7)], DType::kF32);
  limits_.max_running = static_cast<int>(1 + Below(6));
  limits_.chunk_tokens = static_cast<int>(64 + Below(3) * 64 + Below(2) * 17);
  limits_.max_drafts = static_cast<int>(Below(3) == 0 ? 0 : 1 + Below(8));
  limits_.max_draft_rows = static_cast<int>(Below(20));
  limits_.max_length = static_cast<int>(150 + Below(500));
  limits_.reserved_output = static_cast<int>(1 + Below(120));
  limits_.overcommit = Below(3) == 0;
  limits_.sliding_share = Below(4) == 0 ? 0.5 : 0;
  const int among[] = {0, 0, 4, 64};
  limits_.longest_prefix_among = among[Below(4)];
  overlaps_ = Below(4) != 0;
  has_faults_ = Below(3) == 0;
  caches_ = Below(5) != 0;
  is_greedy_ = Below(3) == 0;
  num_priorities_ = Below(3) == 0 ? 3 : 1;
  if (scenario_ == Scenario::kCrowd) {
    limits_.max_running += 1;
    max_live_ = 24;
    arrival_odds_ = 1;
  } else if (scenario_ == Scenario::kOvergrown) {
    layout_ = KvLayout::Make(kLayers[Below(3)], windows[2 + Below(2)], DType::kF32);
    limits_.max_running += 1;
    limits_.max_length = 320;
    limits_.max_drafts /= 4;
    limits_.reserved_output = static_cast<int>(1 + Below(16));
    limits_.overcommit = has_faults_ = false;
    caches_ = true;
    arrival_odds_ = 1;
  } else if (scenario_ == Scenario::kOvercommit) {
    limits_.max_running += 3;
    limits_.max_length = 480;
    limits_.reserved_output = 240;  // as by default, what is asked for is less
    limits_.overcommit = true;
    has_faults_ = false;
    max_live_ = static_cast<size_t>(limits_.max_running) + 4;
    arrival_odds_ = 1;
  }
  ChooseArena();
  for (int i = 0; i < 6; ++i) {
    std::vector<int32_t>& segment = segments_.emplace_back();
    segment.resize(1 + Below(i < 3 ? 64 : 200));
    for (int32_t& token : segment) token = static_cast<int32_t>(Below(3));
  }
}

// One longest sequence exactly, one slab less or more, two, or plenty; slab 0 is not given out.
void Workload::ChooseArena() {
  const KvFormula formula(layout_, limits_.max_drafts);
  const auto one = static_cast<int32_t>(formula.SlabsFor(limits_.max_length));
  if (scenario_ == Scenario::kOvercommit) {
    // The mean sequence ends with 312 tokens.
    const auto all = static_cast<int32_t>(limits_.max_running * formula.SlabsFor(312));
    num_slabs_ = std::max(one, all * 2 / 3) + 1;
    return;
  }
  if (scenario_ == Scenario::kOvergrown) {
    num_slabs_ = one + static_cast<int32_t>(Below(static_cast<uint64_t>(one))) + 1;
    return;
  }
  const int32_t plenty = std::max(8, limits_.max_running + 2) * one;
  const int32_t sizes[] = {one, one - 1, one + 1, 2 * one - 1, 2 * one, 3 * one, plenty};
  const uint64_t choice = scenario_ == Scenario::kCrowd ? 0 : Below(7);
  num_slabs_ = std::max(1, sizes[choice]) + 1;
  // A sequence of a model without full layers reserves its window alone, so that idle pages of old
  // windows fill any such arena; the soft reserve evicts without need.
  has_room_for_all_ = choice == 6 && layout_.full_page_bytes > 0 && limits_.sliding_share == 0;
}

std::vector<int32_t> Workload::MakePrompt() {
  if (scenario_ == Scenario::kOvercommit) {
    // 48 to 240 tokens that no other prompt begins with.
    std::vector<int32_t> prompt(48 + Below(193));
    for (int32_t& token : prompt) token = static_cast<int32_t>(Below(50'000));
    return prompt;
  }
  if (scenario_ == Scenario::kOvergrown) {
    // A page that all begin with, and up to one and a half of its own.
    std::vector<int32_t> prompt(kPageTokens);
    for (uint64_t i = 1 + Below(96); i > 0; --i)
      prompt.push_back(static_cast<int32_t>(Below(50'000)));
    return prompt;
  }
  std::vector<int32_t> prompt;
  const uint64_t parts = 1 + Below(4);
  for (uint64_t i = 0; i < parts; ++i) {
    const auto& segment = segments_[Below(segments_.size())];
    prompt.insert(prompt.end(), segment.begin(), segment.end());
  }
  if (Below(2) == 0) prompt.push_back(static_cast<int32_t>(Below(3)));
  const bool is_short = scenario_ == Scenario::kCrowd && Below(30) != 0;
  prompt.resize(
      std::min<size_t>(prompt.size(), static_cast<size_t>(is_short ? 40 : limits_.max_length - 1)));
  return prompt;
}

int Workload::ChooseOutput() {
  if (scenario_ == Scenario::kOvercommit) return static_cast<int>(96 + Below(145));
  if (scenario_ == Scenario::kOvergrown) return static_cast<int>(20 + Below(140));
  if (Below(10) == 0) return 0;
  return static_cast<int>(1 + Below(Below(3) == 0 ? 300 : 40));
}

std::vector<NewSequence> Workload::MakeRequest(int64_t now_ms) {
  const std::vector<int32_t> prompt = MakePrompt();
  const auto num_prompt = static_cast<int>(prompt.size());
  const int room = limits_.max_length - num_prompt;
  int output = ChooseOutput();
  // In the crowd a prompt is short, or its request needs the whole arena.
  if (scenario_ == Scenario::kCrowd) output = num_prompt > 40 ? room : std::min(output, 8);
  const bool plain = scenario_ == Scenario::kOvercommit;
  const auto salt = static_cast<uint32_t>(1 + Below(2));
  const auto priority = static_cast<int>(Below(static_cast<uint64_t>(num_priorities_)));
  const uint64_t choices = !plain && Below(6) == 0 ? 1 + Below(3) : 1;
  std::vector<NewSequence> request;
  for (uint64_t choice = 0; choice < choices; ++choice) {
    NewSequence& added = request.emplace_back();
    added.id = next_id_++;
    added.prompt = prompt;
    added.max_tokens = num_prompt + std::min(output, room);
    added.priority = priority;
    if (!plain && Below(8) == 0) added.deadline_ms = now_ms + static_cast<int64_t>(Below(200));
    added.salt[0] = static_cast<uint8_t>(salt);
    for (int border = 0; border < num_prompt; border += static_cast<int>(1 + Below(150)))
      added.turn_borders.push_back(border);
    added.waits_for_prompt_of = choice == 0 ? 0 : request.front().id;
    added.score_prompt = !plain && choice == 0 && Below(8) == 0;
    added.caches = caches_ || choices > 1;
    if (Below(4) == 0) added.max_drafts = static_cast<int>(Below(9));
    auto params = std::make_shared<SequenceParams>();
    params->choice = salt;  // FakeDevice looks for the salt there
    params->num_prompt = num_prompt;
    params->max_length = added.max_tokens;
    added.params = params;
  }
  return request;
}

}  // namespace lapidary
