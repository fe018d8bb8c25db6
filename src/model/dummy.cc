// Dummy weights: numbers from a counter, for runs that need a model's shape and not its knowledge.
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

#include "model/bind_weights.h"
#include "model/loader.h"
#include "model/tensor_spec.h"

namespace lapidary {
namespace {

// Each 64-bit draw makes four numbers; its 16-bit lanes are uniform.
constexpr int64_t kPerDraw = 4;
constexpr uint64_t kAlignment = 64;

// A finaliser of 64-bit mixing: every bit of the counter reaches every bit of the draw.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

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

Spread Between(float low, float high) { return {(low + high) / 2, (high - low) / 2}; }
Spread WithDeviation(double deviation) {
  return {0, static_cast<float>(deviation * std::sqrt(3.0))};
}

// What keeps a forward pass well conditioned: linears preserve the size of what they read, norms
// are about 1, keys are small because scores are not scaled, the final norm makes logits distinct.
Spread SpreadOf(const TensorSpec& spec) {
  const std::string_view name = spec.name;
  const auto has = [&](std::string_view part) { return name.find(part) != name.npos; };
  if (has("layer_scalar")) return Between(0.6f, 1.1f);
  if (has("k_norm")) return Between(0.08f, 0.18f);
  if (has("q_norm")) return Between(0.8f, 1.2f);
  if (name == "model.norm.weight" || name == "model.language_model.norm.weight")
    return Between(3.0f, 5.0f);
  if (has("norm") || has("per_expert_scale") || has("router.scale")) return Between(0.5f, 1.5f);
  return WithDeviation(1.0 / std::sqrt(static_cast<double>(spec.shape.back())));
}

// Elements [begin, end), begin a multiple of kPerDraw. fma: one rounding wherever it is computed.
void FillBf16(Bf16* out, int64_t begin, int64_t end, uint64_t key, Spread spread) {
  const float step = spread.half / 32767.5f;
  for (int64_t i = begin; i < end; i += kPerDraw) {
    const uint64_t draw = Mix(key + static_cast<uint64_t>(i / kPerDraw) * 0x9e3779b97f4a7c15u);
    const int64_t lanes = std::min(kPerDraw, end - i);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const float uniform = static_cast<float>((draw >> (16 * lane)) & 0xffff) - 32767.5f;
      out[i + lane] = spread.centre == 0 ? ToBf16(uniform * step)
                                         : ToBf16(std::fma(uniform, step, spread.centre));
    }
  }
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
  const TensorSpec* spec;
  Tensor tensor;
  int64_t begin, end;
};

void Fill(const std::vector<Piece>& pieces, size_t thread, size_t num_threads) {
  for (size_t i = thread; i < pieces.size(); i += num_threads) {
    Piece piece = pieces[i];
    if (piece.tensor.dtype == DType::kI64)
      FillOrdering(static_cast<int64_t*>(piece.tensor.data), piece.end);
    else
      FillBf16(piece.tensor.bf16(), piece.begin, piece.end, NameKey(piece.spec->name),
               SpreadOf(*piece.spec));
  }
}

void AddPieces(const TensorSpec& spec, const Tensor& tensor, std::vector<Piece>& pieces) {
  constexpr int64_t kPiece = int64_t{4} << 20;
  const int64_t count = tensor.num_elements();
  if (tensor.dtype == DType::kI64) {
    pieces.push_back({&spec, tensor, 0, count});
    return;
  }
  for (int64_t at = 0; at < count; at += kPiece)
    pieces.push_back({&spec, tensor, at, std::min(count, at + kPiece)});
}

uint64_t RoundUp(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

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
  const size_t num_threads = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < num_threads; ++i)
    threads.emplace_back([&, i] { Fill(pieces, i, num_threads); });
  for (std::thread& thread : threads) thread.join();
  checkpoint->weights =
      BindWeights(checkpoint->config, [&](const std::string& name) { return tensors.at(name); });
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

}  // namespace lapidary
