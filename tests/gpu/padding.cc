#include "padding.h"

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "engine/decode_graphs.h"
#include "kv/arena.h"
#include "model/loader.h"
#include "ops/gpu_ops.h"
#include "small_model.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

constexpr int kSequences = 16, kDrafts = 3, kCells = 4;

// Sequences of 3 to 198 tokens, each in its own slot and pages, and steps of their next rows.
class Sequences {
 public:
  Sequences(const Checkpoint& checkpoint, Ops& ops)
      : ops_(ops),
        config_(checkpoint.config),
        layout_(KvLayout::Make(KvShapes(config_, ChooseKvFold(config_, KvFold::kAuto, true).folds),
                               config_.window, DType::kBf16)),
        arena_(layout_,
               1 + NumSlabs(layout_.full_pages_per_slab) + NumSlabs(layout_.sliding_pages_per_slab),
               ops.device()),
        full_(kSequences * kCells),
        sliding_(kSequences * kCells),
        builder_(Table(full_), Table(sliding_), config_.window),
        model_(config_, checkpoint.weights, ops, arena_, Limits(config_)),
        slots_(ops.MakeSlotStates(kSequences, 0)),
        graphs_(model_, nullptr, ops, *slots_, kSequences, kDrafts, kSequences * (1 + kDrafts)) {
    arena_.Poison();
    const int first = (1 + NumSlabs(layout_.full_pages_per_slab)) * layout_.sliding_pages_per_slab;
    for (int i = 0; i < kSequences * kCells; ++i) {
      full_[static_cast<size_t>(i)] = layout_.full_pages_per_slab + i;
      sliding_[static_cast<size_t>(i)] = first + i;
    }
    graphs_.Capture(Table(full_), Table(sliding_));
    for (int slot = 0; slot < kSequences; ++slot) {
      builder_.Clear();
      const std::vector<int32_t> prompt = Tokens(slot, Length(slot));
      builder_.AddChunk(slot, 0, prompt, 1, {});
      model_.Forward(builder_.Build());
    }
  }

  // How many of all fills give other bits.
  int CountWrong() {
    int wrong = 0;
    for (const int rows : {1, 1 + (kDrafts + 1) / 2, 1 + kDrafts})
      for (int count = 1; count <= kSequences; ++count) {
        const bool same = FromGraph(count, rows) == AsItIs(count, rows);
        if (!same) fmt::print("     {} sequences of {} rows differ\n", count, rows);
        wrong += !same;
      }
    return wrong;
  }

 private:
  static int NumSlabs(int pages_per_slab) {
    return (kSequences * kCells + pages_per_slab - 1) / pages_per_slab;
  }
  static Gemma4::Limits Limits(const ModelConfig& config) {
    Gemma4::Limits limits;
    limits.max_rows = limits.max_output_rows = 256;
    limits.activations = DType::kBf16;
    limits.max_scratch_pages =
        1 + BatchBuilder::ScratchPages(config.window, config.window, 256 + kPageTokens);
    return limits;
  }
  static Tensor Table(std::vector<int32_t>& ids) {
    return MakeTensor(ids.data(), DType::kI32, kSequences, kCells);
  }
  static int Length(int slot) { return 3 + 13 * slot; }
  static std::vector<int32_t> Tokens(int slot, int count) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    uint32_t x = static_cast<uint32_t>(slot) * 7919u + static_cast<uint32_t>(count);
    for (int32_t& token : tokens) {
      x = x * 1664525u + 1013904223u;
      token = static_cast<int32_t>((x >> 8) % kSmallVocab);
    }
    return tokens;
  }

  Batch Step(int count, int rows) {
    builder_.Clear();
    for (int slot = 0; slot < count; ++slot)
      builder_.AddDecode(slot, Length(slot), Tokens(slot + 100, rows));
    return builder_.Build();
  }
  // Hidden states and logits of the step's rows, as they lie in memory.
  std::vector<char> Bytes(const StepOutput& output, int64_t num_rows) {
    std::vector<char> bytes;
    for (const Tensor& tensor :
         {output.hidden.Rows(0, num_rows), output.logits.Rows(0, num_rows)}) {
      std::vector<char> part(static_cast<size_t>(tensor.num_elements() * SizeOf(tensor.dtype)));
      ops_.device().CopyOut(part.data(), tensor.data, static_cast<int64_t>(part.size()));
      bytes.insert(bytes.end(), part.begin(), part.end());
    }
    return bytes;
  }
  std::vector<char> FromGraph(int count, int rows) {
    model_.Poison();
    StepOutput output;
    graphs_.Place(Step(count, rows));
    CHECK(graphs_.Run(output), "no graph of {} x {} rows", count, rows);
    return Bytes(output, int64_t{count} * rows);
  }
  // Padded to the same rows, but with tokens: rows without a slot and keys, whose values are
  // finite.
  std::vector<char> AsItIs(int count, int rows) {
    int padded = 1;
    while (padded < count) padded *= 2;
    const Batch batch = Step(count, rows);
    const auto num_rows = static_cast<size_t>(padded) * static_cast<size_t>(rows);
    const auto extended = [&](const Tensor& from, int32_t padding) {
      std::vector<int32_t> values(from.i32(), from.i32() + from.rows());
      values.resize(num_rows, padding);
      return values;
    };
    std::vector<int32_t> tokens = extended(batch.tokens, 5),
                         positions = extended(batch.rows.positions, 0),
                         key_ends = extended(batch.rows.key_ends, 0),
                         slots = extended(batch.rows.slots, -1),
                         chunks = extended(batch.rows.chunks, -1), all = extended(batch.tokens, 0);
    for (size_t i = 0; i < num_rows; ++i) all[i] = static_cast<int32_t>(i);
    for (size_t i = static_cast<size_t>(batch.num_rows()); i < num_rows; i += 2) slots[i] = -2;
    const auto view = [](std::vector<int32_t>& values) {
      return MakeTensor(values.data(), DType::kI32, static_cast<int64_t>(values.size()));
    };
    Batch whole = batch;
    whole.tokens = whole.output_tokens = view(tokens);
    whole.output_rows = view(all);
    whole.rows.positions = view(positions);
    whole.rows.key_ends = view(key_ends);
    whole.rows.slots = view(slots);
    whole.rows.chunks = view(chunks);
    whole.output = whole.rows;
    return Bytes(model_.Forward(whole), batch.num_rows());
  }

  Ops& ops_;
  const ModelConfig& config_;
  KvLayout layout_;
  KvArena arena_;
  std::vector<int32_t> full_, sliding_;
  BatchBuilder builder_;
  Gemma4 model_;
  std::unique_ptr<SlotStates> slots_;
  DecodeGraphs graphs_;
};

}  // namespace

bool PaddingChangesNothing(const fs::path& configs) {
  bool same = true;
  for (const SmallModel& family : kSmallModels) {
    const std::shared_ptr<Ops> ops = OpenGpuOps(BackendKind::kCuda);
    const auto checkpoint = OrThrow(MakeDummyCheckpoint(
        WriteSmallModel(configs, family, fs::temp_directory_path() / "lapidary_padding"),
        uint64_t{32} << 30, ops));
    const int wrong = Sequences(*checkpoint, *ops).CountWrong();
    fmt::print("{} {}: {} of {} fills of a graph differ\n", wrong == 0 ? "ok  " : "FAIL",
               family.name, wrong, 3 * kSequences);
    std::fflush(stdout);
    same &= wrong == 0;
  }
  return same;
}

}  // namespace lapidary
