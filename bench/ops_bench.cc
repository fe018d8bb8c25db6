// ops_bench: Linear of every instruction set against what this machine can do in the same run: the
// read bandwidth of its memory (one row) and its FMA peak (256 rows). Prints a table and exits 0
// whatever it reached; --json FILE writes the same figures as a record.
#include <fmt/format.h>
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/bf16.h"
#include "base/worker_pool.h"
#include "ops/cpu/linear.h"

namespace lapidary {
namespace {

// Weights of successive calls rotate through this much memory, so that they never lie in a cache.
constexpr int64_t kArenaBytes = int64_t{768} << 20;
constexpr int64_t kArenaElements = kArenaBytes / 2;
constexpr double kRowSeconds = 0.25;  // spent on one line of the table, at least 3 calls
constexpr int kMaxRows = 256;

struct Shape {
  const char* what;
  int64_t n, k;
};
// Gemma 4 E2B, a quarter of its output matrix, and the MLP of the 31B.
constexpr Shape kShapes[] = {
    {"E2B q", 2048, 1536},        {"E2B gate", 12288, 1536}, {"E2B down", 1536, 6144},
    {"E2B vocab/4", 65536, 1536}, {"31B gate", 21504, 5376}, {"31B down", 5376, 21504},
};
constexpr int64_t kNumRows[] = {1, 8, 64, 256};

struct Options {
  int num_threads = 0;
  bool plain = false;
  std::string json_path;
};

struct Line {
  std::string variant;
  Shape shape;
  int64_t m;
  double us, gb_per_s, gflop_per_s;
};

struct Ceilings {
  double read_gb_per_s = 0;
  double avx2_gflop_per_s = 0, avx512_gflop_per_s = 0;

  double Flops(std::string_view variant) const {
    return variant == "avx512" ? avx512_gflop_per_s : variant == "avx2" ? avx2_gflop_per_s : 0;
  }
};

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Keeps a result alive without a store that would count as memory traffic.
template <typename T>
void Keep(const T& value) {
  asm volatile("" : : "m"(value) : "memory");
}

__attribute__((target("avx2"))) void ReadAll(const Bf16* begin, int64_t count) {
  // Four places at once: more than one stream is what the hardware prefetchers are made for.
  constexpr int kStreams = 4;
  const int64_t quarter = count / kStreams / 64 * 64;
  __m256i sum[kStreams] = {};
  for (int64_t i = 0; i < quarter; i += 32)
    for (int s = 0; s < kStreams; ++s) {
      const Bf16* p = begin + s * quarter + i;
      __builtin_prefetch(p + 1024);
      sum[s] = _mm256_xor_si256(sum[s], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
      sum[s] =
          _mm256_xor_si256(sum[s], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16)));
    }
  Keep(sum);
}

// Enough chains to cover the latency of fma on any core; returns floating point operations.
constexpr int64_t kFmaSteps = 500'000;

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

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        pool_(options.num_threads),
        arena_(new Bf16[kArenaElements]),
        x_(static_cast<size_t>(kMaxRows * 21504)),
        y_(static_cast<size_t>(kMaxRows * 65536)) {
    // Small varied weights, written by the threads so that every page exists.
    pool_.ParallelFor(kArenaElements, 1 << 20, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        arena_.get()[i].bits = static_cast<uint16_t>(0x3c00 + (i * 40503 >> 5 & 0x80ff));
    });
    for (size_t i = 0; i < x_.size(); ++i) x_[i] = static_cast<float>(i % 17) * 0.1f - 0.8f;
  }

  void Run() {
    MeasureCeilings();
    for (int v = 0; v < cpu::kNumLinearVariants; ++v) {
      const cpu::LinearVariant& variant = cpu::LinearVariants()[v];
      if (!variant.supported) continue;
      if (std::string_view(variant.name) == "plain" && !options_.plain) continue;
      for (const Shape& shape : kShapes)
        for (int64_t m : kNumRows) {
          MeasureCeilings();
          lines_.push_back(Measure(variant, shape, m));
        }
      MeasureCeilings();
    }
  }

  void Print() const {
    fmt::print("threads {}, read {:.1f} GB/s, fma avx2 {:.0f} GFLOP/s, avx512 {:.0f} GFLOP/s\n",
               pool_.num_threads(), ceilings_.read_gb_per_s, ceilings_.avx2_gflop_per_s,
               ceilings_.avx512_gflop_per_s);
    fmt::print("{:7} {:12} {:>6} {:>6} {:>4} {:>10} {:>7} {:>8} {:>7} {:>6}\n", "variant", "weight",
               "N", "K", "M", "us", "GB/s", "GFLOP/s", "% read", "% fma");
    for (const Line& line : lines_)
      fmt::print("{:7} {:12} {:6} {:6} {:4} {:10.0f} {:7.1f} {:8.1f} {:7.1f} {:6.1f}\n",
                 line.variant, line.shape.what, line.shape.n, line.shape.k, line.m, line.us,
                 line.gb_per_s, line.gflop_per_s, ReadPercent(line), FmaPercent(line));
    for (int v = 0; v < cpu::kNumLinearVariants; ++v) {
      const std::string_view name = cpu::LinearVariants()[v].name;
      double least_read = 1e9, least_fma = 1e9;
      for (const Line& line : lines_) {
        if (line.variant != name) continue;
        if (line.m == 1) least_read = std::min(least_read, ReadPercent(line));
        if (line.m == kMaxRows) least_fma = std::min(least_fma, FmaPercent(line));
      }
      if (least_read < 1e9)
        fmt::print(
            "{}: 1 row, least {:.1f} % of the read bandwidth; 256 rows, least {:.1f} % of "
            "the FMA peak\n",
            name, least_read, least_fma);
    }
  }

  // Whether the record could be written.
  bool WriteJson() const {
    std::FILE* file = std::fopen(options_.json_path.c_str(), "w");
    if (file == nullptr) return false;
    fmt::print(file,
               "{{\"threads\": {}, \"read_gb_per_s\": {:.2f}, \"fma_avx2_gflop_per_s\": {:.1f}, "
               "\"fma_avx512_gflop_per_s\": {:.1f}, \"linear\": [\n",
               pool_.num_threads(), ceilings_.read_gb_per_s, ceilings_.avx2_gflop_per_s,
               ceilings_.avx512_gflop_per_s);
    for (size_t i = 0; i < lines_.size(); ++i) {
      const Line& line = lines_[i];
      fmt::print(file,
                 "{{\"variant\": \"{}\", \"n\": {}, \"k\": {}, \"m\": {}, \"us\": {:.1f}, "
                 "\"gb_per_s\": {:.2f}, \"gflop_per_s\": {:.2f}, \"read_percent\": {:.1f}, "
                 "\"fma_percent\": {:.1f}}}{}\n",
                 line.variant, line.shape.n, line.shape.k, line.m, line.us, line.gb_per_s,
                 line.gflop_per_s, ReadPercent(line), FmaPercent(line),
                 i + 1 < lines_.size() ? "," : "");
    }
    fmt::print(file, "]}}\n");
    return std::fclose(file) == 0;
  }

 private:
  // Before every line; the best of the run counts, because other load can only lower a pass.
  void MeasureCeilings() {
    for (int repeat = 0; repeat < 2; ++repeat) {
      if (__builtin_cpu_supports("avx2")) MeasureRead();
      if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        MeasureFma(FmaAvx2, ceilings_.avx2_gflop_per_s);
      if (__builtin_cpu_supports("avx512f")) MeasureFma(FmaAvx512, ceilings_.avx512_gflop_per_s);
    }
  }

  void MeasureRead() {
    const double seconds = Seconds([&] {
      pool_.ParallelFor(kArenaElements, 1 << 22, [&](int64_t begin, int64_t end) {
        ReadAll(arena_.get() + begin, end - begin);
      });
    });
    ceilings_.read_gb_per_s = std::max(ceilings_.read_gb_per_s, kArenaBytes / seconds * 1e-9);
  }

  void MeasureFma(double (*kernel)(), double& best) {
    double flops = 0;
    const double seconds = Seconds([&] {
      std::vector<double> done(static_cast<size_t>(pool_.num_threads()));
      pool_.ParallelFor(pool_.num_threads(), 1, [&](int64_t begin, int64_t) {
        done[static_cast<size_t>(begin)] = kernel();
      });
      for (double count : done) flops += count;
    });
    best = std::max(best, flops / seconds * 1e-9);
  }

  Line Measure(const cpu::LinearVariant& variant, const Shape& shape, int64_t m) {
    cpu::LinearParams params;
    params.x = x_.data();
    params.x_stride = params.w_stride = params.k = shape.k;
    params.y = y_.data();
    params.y_stride = params.n = shape.n;
    params.m = m;
    const int64_t weight_elements = shape.n * shape.k;
    double best = 1e9, total = 0;
    for (int repeat = 0; repeat < 3 || total < kRowSeconds; ++repeat) {
      if (next_weight_ + weight_elements > kArenaElements) next_weight_ = 0;
      params.w = arena_.get() + next_weight_;
      next_weight_ += weight_elements;
      const double seconds = Seconds([&] { cpu::Linear(params, pool_, variant.kernel); });
      best = std::min(best, seconds);
      total += seconds;
    }
    const double elements = static_cast<double>(weight_elements);
    return {variant.name,
            shape,
            m,
            best * 1e6,
            elements * 2 / best * 1e-9,
            2 * elements * static_cast<double>(m) / best * 1e-9};
  }

  double ReadPercent(const Line& line) const {
    return ceilings_.read_gb_per_s > 0 ? 100 * line.gb_per_s / ceilings_.read_gb_per_s : 0;
  }
  double FmaPercent(const Line& line) const {
    const double peak = ceilings_.Flops(line.variant);
    return peak > 0 ? 100 * line.gflop_per_s / peak : 0;
  }

  Options options_;
  WorkerPool pool_;
  std::unique_ptr<Bf16[]> arena_;
  int64_t next_weight_ = 0;
  std::vector<float> x_, y_;
  Ceilings ceilings_;
  std::vector<Line> lines_;
};

bool ParseOptions(int argc, char** argv, Options& options) {
  options.num_threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 256);
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--plain") {
      options.plain = true;
    } else if (flag == "--json" && i + 1 < argc) {
      options.json_path = argv[++i];
    } else if (flag == "--threads" && i + 1 < argc) {
      options.num_threads = std::atoi(argv[++i]);
      if (options.num_threads < 1 || options.num_threads > 256) return false;
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) {
  lapidary::Options options;
  if (!lapidary::ParseOptions(argc, argv, options)) {
    fmt::print(stderr, "usage: ops_bench [--threads N] [--json FILE] [--plain]\n");
    return 2;
  }
  lapidary::Bench bench(options);
  bench.Run();
  bench.Print();
  if (!options.json_path.empty() && !bench.WriteJson()) {
    fmt::print(stderr, "cannot write {}\n", options.json_path);
    return 1;
  }
  return 0;
}
