// Dummy weights: numbers from a counter, for runs that need a model's shape and not its knowledge.
#include "model/dummy.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "base/worker_pool.h"
#include "model/bind_weights.h"
#include "model/loader.h"

namespace lapidary {
namespace {

constexpr uint64_t kAlignment = 64;

// FNV-1a of the published name.
uint64_t NameKey(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

// Uniform on [centre - half, centre + half].
struct Spread {
  float centre = 0, half = 0;
};

Spread Between(double low, double high) {
  return {static_cast<float>((low + high) / 2), static_cast<float>((high - low) / 2)};
}
Spread WithDeviation(double deviation) {
  return {0, static_cast<float>(deviation * std::sqrt(3.0))};
}

Spread SpreadOf(const TensorSpec& spec) {
  const std::string_view name = spec.name;
  const auto has = [&](std::string_view part) { return name.find(part) != name.npos; };
  const double root = spec.shape.empty() ? 1 : std::sqrt(static_cast<double>(spec.shape.back()));
  if (has("layer_scalar")) return Between(0.6, 1.1);
  if (has("k_norm")) return Between(1.3 / root, 2.9 / root);
  if (has("q_norm")) return Between(0.8, 1.2);
  if (has("post_attention_layernorm")) return Between(0.05, 0.15);
  if (name == "model.norm.weight" || name == "model.language_model.norm.weight")
    return Between(3.0, 5.0);
  if (has("norm") || has("per_expert_scale") || has("router.scale")) return Between(0.5, 1.5);
  return WithDeviation(1.0 / root);
}

// Four pairs of elements at a time, in the vectors that every x86-64 has.
using U32x4 = uint32_t __attribute__((vector_size(16)));
using I32x4 = int32_t __attribute__((vector_size(16)));
using F32x4 = float __attribute__((vector_size(16)));

U32x4 Draw(U32x4 pair, uint32_t key_low, uint32_t key_high) {
  U32x4 x = pair + key_low;
  x = (x ^ (x >> 16)) * 0x21f0aaadu;
  x = (x ^ (x >> 15) ^ key_high) * 0x735a2d97u;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// 16 uniform bits to the bits of an f32 that are rounded to bf16 in its upper half.
U32x4 Rounded(U32x4 lane, const DummyRule& rule) {
  const F32x4 uniform = __builtin_convertvector(reinterpret_cast<I32x4>(lane), F32x4) - 32767.5f;
  const U32x4 bits = reinterpret_cast<U32x4>(uniform * rule.step + rule.centre);
  return bits + 0x7fffu + ((bits >> 16) & 1u);
}

// Elements i to i + 7, i a multiple of eight.
U32x4 EightElements(int64_t i, const DummyRule& rule) {
  const auto pair = static_cast<uint64_t>(i / 2);
  const U32x4 lanes = {0, 1, 2, 3};
  const U32x4 draw =
      Draw(lanes + static_cast<uint32_t>(pair), static_cast<uint32_t>(rule.key),
           static_cast<uint32_t>(rule.key >> 32) ^ static_cast<uint32_t>(pair >> 32));
  return (Rounded(draw & 0xffffu, rule) >> 16) | (Rounded(draw >> 16, rule) & 0xffff0000u);
}

// Elements [begin, end), begin a multiple of eight.
void FillBf16(Bf16* out, int64_t begin, int64_t end, const DummyRule& rule) {
  int64_t i = begin;
  for (; i + 8 <= end; i += 8) {
    const U32x4 elements = EightElements(i, rule);
    std::memcpy(out + i, &elements, sizeof(elements));
  }
  if (i == end) return;
  const U32x4 last = EightElements(i, rule);
  std::memcpy(out + i, &last, static_cast<size_t>(end - i) * sizeof(Bf16));
}

// A permutation of 0..count-1 that spreads neighbours apart: i times a number prime to count.
void FillOrdering(int64_t* out, int64_t count) {
  int64_t factor = std::max<int64_t>(1, count * 5 / 8);
  while (std::gcd(factor, count) != 1) ++factor;
  for (int64_t i = 0; i < count; ++i) out[i] = i * factor % count;
}

class DummyCheckpoint : public Checkpoint {
 public:
  ~DummyCheckpoint() override {
    if (memory != nullptr) munmap(memory, memory_bytes);
  }
  char* memory = nullptr;
  size_t memory_bytes = 0;
};

// One stretch of one tensor, a thread's unit of work.
struct Piece {
  DummyRule rule;
  Tensor tensor;
  int64_t begin, end;
};

void Fill(const std::vector<Piece>& pieces) {
  WorkerPool pool(static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 256u)));
  pool.ParallelFor(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Piece piece = pieces[static_cast<size_t>(i)];
      if (piece.tensor.dtype == DType::kI64)
        FillOrdering(static_cast<int64_t*>(piece.tensor.data), piece.end);
      else
        FillBf16(piece.tensor.bf16(), piece.begin, piece.end, piece.rule);
    }
  });
}

void AddPieces(const TensorSpec& spec, const Tensor& tensor, std::vector<Piece>& pieces) {
  constexpr int64_t kPiece = int64_t{4} << 20;
  const int64_t count = tensor.num_elements();
  const int64_t piece = tensor.dtype == DType::kI64 ? count : kPiece;
  for (int64_t at = 0; at < count; at += piece)
    pieces.push_back({DummyRuleOf(spec), tensor, at, std::min(count, at + piece)});
}

uint64_t RoundUp(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

DummyRule DummyRuleOf(const TensorSpec& spec) {
  const Spread spread = SpreadOf(spec);
  return {NameKey(spec.name), spread.centre, spread.half / 32767.5f};
}

Result<std::unique_ptr<Checkpoint>> MakeDummyCheckpoint(const std::filesystem::path& model_dir,
                                                        uint64_t available_bytes) {
  auto config = ReadModelConfig(model_dir);
  if (!config.ok()) return config.error();
  auto checkpoint = std::make_unique<DummyCheckpoint>();
  checkpoint->config = std::move(config).value();
  checkpoint->weight_bytes = WeightBytes(checkpoint->config);
  const std::string where = (model_dir / "config.json").string();
  if (checkpoint->weight_bytes > available_bytes)
    return Error{fmt::format("dummy weights of {} need {} bytes, {} bytes are available", where,
                             checkpoint->weight_bytes, available_bytes),
                 "", ""};
  const std::vector<TensorSpec> specs = TensorSpecs(checkpoint->config);
  for (const TensorSpec& spec : specs)
    if (spec.role == TensorRole::kUsed) checkpoint->memory_bytes += RoundUp(spec.bytes());
  void* memory = mmap(nullptr, checkpoint->memory_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return Error{fmt::format("dummy weights of {} need {} bytes: {}", where,
                             checkpoint->memory_bytes, std::strerror(errno)),
                 "", ""};
  checkpoint->memory = static_cast<char*>(memory);
  madvise(memory, checkpoint->memory_bytes, MADV_HUGEPAGE);
  std::map<std::string, Tensor> tensors;
  std::vector<Piece> pieces;
  uint64_t at = 0;
  for (const TensorSpec& spec : specs) {
    if (spec.role != TensorRole::kUsed) continue;
    Tensor tensor;
    tensor.data = checkpoint->memory + at;
    tensor.dtype = spec.dtype == "I64" ? DType::kI64 : DType::kBf16;
    tensor.rank = static_cast<int>(spec.shape.size());
    std::copy(spec.shape.begin(), spec.shape.end(), tensor.shape.begin());
    tensor.row_stride = tensor.cols();
    at += RoundUp(spec.bytes());
    AddPieces(spec, tensor, pieces);
    tensors.emplace(spec.name, tensor);
  }
  Fill(pieces);
  checkpoint->weights =
      BindWeights(checkpoint->config, [&](const std::string& name) { return tensors.at(name); });
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

}  // namespace lapidary
