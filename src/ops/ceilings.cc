#include "ops/ceilings.h"

#include <immintrin.h>

#include <algorithm>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/measure.h"
#include "ops/cpu/linear.h"

namespace lapidary {
namespace {

constexpr int64_t kBlock = 1 << 20;             // elements that a thread takes at a time
constexpr size_t kMostRead = size_t{96} << 20;  // elements of a sample
constexpr int kSamples = 5;

// Reads [begin, begin + count) from kStreams places at once.
template <int kStreams>
__attribute__((target("avx2"))) void ReadAll(const Bf16* begin, int64_t count) {
  const int64_t part = count / kStreams / 64 * 64;
  __m256i sum[kStreams] = {};
  for (int64_t i = 0; i < part; i += 32)
    for (int s = 0; s < kStreams; ++s) {
      const Bf16* p = begin + s * part + i;
      __builtin_prefetch(p + 1024);
      sum[s] = _mm256_xor_si256(sum[s], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
      sum[s] =
          _mm256_xor_si256(sum[s], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16)));
    }
  Keep(sum);
}

// Enough chains to cover the latency of fma on any core; return floating point operations.
constexpr int64_t kFmaSteps = 4'000'000;

__attribute__((target("avx2,fma"))) double FmaAvx2() {
  __m256 acc[12];
  for (int i = 0; i < 12; ++i) acc[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
  for (int64_t step = 0; step < kFmaSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) acc[i] = _mm256_fmadd_ps(acc[i], a, b);
  }
  Keep(acc);
  return static_cast<double>(kFmaSteps) * 12 * 8 * 2;
}

__attribute__((target("avx512f"))) double FmaAvx512() {
  __m512 acc[24];
  for (int i = 0; i < 24; ++i) acc[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
  for (int64_t step = 0; step < kFmaSteps; ++step) {
#pragma GCC unroll 24
    for (int i = 0; i < 24; ++i) acc[i] = _mm512_fmadd_ps(acc[i], a, b);
  }
  Keep(acc);
  return static_cast<double>(kFmaSteps) * 24 * 16 * 2;
}

}  // namespace

const CeilingProbe::ReadFunction CeilingProbe::kReaders[4] = {ReadAll<1>, ReadAll<2>, ReadAll<4>,
                                                              ReadAll<8>};

CeilingProbe::CeilingProbe(WorkerPool& pool, std::span<const Bf16> memory)
    : pool_(pool), memory_(memory), read_(kReaders[0]) {
  CHECK(!memory.empty(), "no memory to read");
  double best = 0;
  ReadFunction chosen = read_;
  for (const ReadFunction reader : kReaders) {
    read_ = reader;
    std::vector<double> samples(kSamples);
    for (double& sample : samples) sample = ReadGbPerS();
    if (Median(samples) <= best) continue;
    best = Median(samples);
    chosen = reader;
  }
  read_ = chosen;
}

double CeilingProbe::ReadGbPerS() {
  const size_t count = std::min(kMostRead, memory_.size());
  if (next_ + count > memory_.size()) next_ = 0;
  const Bf16* const from = memory_.data() + next_;
  next_ += count;
  const double seconds = Seconds([&] {
    pool_.ParallelFor(static_cast<int64_t>(count), kBlock,
                      [&](int64_t begin, int64_t end) { read_(from + begin, end - begin); });
  });
  return static_cast<double>(count) * 2 / seconds * 1e-9;
}

double CeilingProbe::FmaGflopPerS(const char* instruction_set) {
  const std::string_view name = instruction_set;
  double (*const kernel)() = name == "avx512" ? FmaAvx512 : name == "avx2" ? FmaAvx2 : nullptr;
  if (kernel == nullptr) return 0;
  std::vector<double> done(static_cast<size_t>(pool_.num_threads()));
  const double seconds = Seconds([&] {
    pool_.ParallelFor(pool_.num_threads(), 1,
                      [&](int64_t begin, int64_t) { done[static_cast<size_t>(begin)] = kernel(); });
  });
  double flops = 0;
  for (const double count : done) flops += count;
  return flops / seconds * 1e-9;
}

Ceilings MeasureHostCeilings(int num_threads) {
  const cpu::LinearVariant& variant = cpu::BestLinearVariant();
  if (&variant == cpu::LinearVariants()) return {};  // a machine without vectors
  if (num_threads == 0)
    num_threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 256);
  constexpr int64_t kElements = int64_t{128} << 20;
  WorkerPool pool(num_threads);
  const std::unique_ptr<Bf16[]> memory(new Bf16[kElements]);
  // Written by the threads, so that every page exists.
  pool.ParallelFor(kElements, kBlock, [&](int64_t begin, int64_t end) {
    std::fill(memory.get() + begin, memory.get() + end, Bf16{0x3c00});
  });
  CeilingProbe probe(pool, {memory.get(), static_cast<size_t>(kElements)});
  std::vector<double> reads, fmas;
  for (int i = 0; i < kSamples; ++i) {
    reads.push_back(probe.ReadGbPerS());
    fmas.push_back(probe.FmaGflopPerS(variant.name));
  }
  return {Median(reads), 0, Median(fmas) * 1e-3};
}

}  // namespace lapidary
