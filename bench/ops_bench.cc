// ops_bench: Linear of every instruction set against what this machine can do in the same moment:
// the read bandwidth of its memory (one row) and its FMA peak (256 rows). A sample of Linear and
// one of the ceiling take turns, and the median of their ratios counts, so that other load on the
// machine falls on both. Prints a table and exits 0 whatever it reached; --json FILE writes the
// same figures as a record. --scan measures the sampler's way over a row of a vocabulary of 262,144
// in its place, on one thread, against that thread's read bandwidth.
#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/bf16.h"
#include "base/measure.h"
#include "base/worker_pool.h"
#include "ops/ceilings.h"
#include "ops/cpu/linear.h"
#include "ops/sampling.h"

namespace lapidary {
namespace {

// Weights of successive calls rotate through this much memory, so that they never lie in a cache.
constexpr int64_t kArenaBytes = int64_t{768} << 20;
constexpr int64_t kArenaElements = kArenaBytes / 2;
constexpr double kSampleSeconds = 0.02;  // of each sample at least
constexpr int kRounds = 9;               // samples of a line
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
  bool plain = false, scan = false;
  std::string json_path;
};

// What the sampler is asked; the first line is the check for finite logits.
struct ScanCase {
  const char* what;
  float temperature;
  int top_k;
  float top_p, min_p;
};
constexpr ScanCase kScans[] = {
    {"all finite", 0, 0, 1, 0},
    {"greedy", 0, 0, 1, 0},
    {"top-k 64, top-p 0.95", 1, 64, 0.95f, 0},
    {"top-p 0.95", 1, 0, 0.95f, 0},
    {"min-p 0.05", 1, 0, 1, 0.05f},
    {"temperature 1 alone", 1, 0, 1, 0},
};
constexpr int kScanVocab = 262'144;
constexpr size_t kScanRows = 128;  // 128 MiB: more than the caches hold

struct Line {
  std::string variant;
  Shape shape;
  int64_t m;
  double us, gb_per_s, gflop_per_s;  // medians
  double read_percent, fma_percent;  // medians of the ratios to the ceilings beside each sample
};

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
    probe_ = std::make_unique<CeilingProbe>(
        pool_, std::span<const Bf16>(arena_.get(), static_cast<size_t>(kArenaElements)));
  }

  void Run() {
    for (int v = 0; v < cpu::kNumLinearVariants; ++v) {
      const cpu::LinearVariant& variant = cpu::LinearVariants()[v];
      if (!variant.supported) continue;
      if (std::string_view(variant.name) == "plain" && !options_.plain) continue;
      for (const Shape& shape : kShapes)
        for (int64_t m : kNumRows) lines_.push_back(Measure(variant, shape, m));
    }
  }

  // Rows like a model's: most logits far below a few.
  void Scan() {
    std::vector<float> rows(kScanRows * kScanVocab);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& x : rows) x = 2.5f * normal(random);
    for (size_t i = 0; i < rows.size(); i += 5000) rows[i] += 12;
    fmt::print("one thread, V {}, medians of {}\n{:24} {:>9} {:>7} {:>7}\n", kScanVocab, kRounds,
               "", "us", "GB/s", "% read");
    for (const ScanCase& scan : kScans) MeasureScan(scan, rows);
    fmt::print("read {:.1f} GB/s\n", Median(reads_));
  }

  void Print() const {
    fmt::print("threads {}, medians: read {:.1f} GB/s, fma {}\n", pool_.num_threads(),
               Median(reads_), FmaText());
    fmt::print("{:7} {:12} {:>6} {:>6} {:>4} {:>10} {:>7} {:>8} {:>7} {:>6}\n", "variant", "weight",
               "N", "K", "M", "us", "GB/s", "GFLOP/s", "% read", "% fma");
    for (const Line& line : lines_)
      fmt::print("{:7} {:12} {:6} {:6} {:4} {:10.0f} {:7.1f} {:8.1f} {:7.1f} {:6.1f}\n",
                 line.variant, line.shape.what, line.shape.n, line.shape.k, line.m, line.us,
                 line.gb_per_s, line.gflop_per_s, line.read_percent, line.fma_percent);
    for (int v = 0; v < cpu::kNumLinearVariants; ++v) {
      const std::string_view name = cpu::LinearVariants()[v].name;
      double least_read = 1e9, least_fma = 1e9;
      for (const Line& line : lines_) {
        if (line.variant != name) continue;
        if (line.m == 1) least_read = std::min(least_read, line.read_percent);
        if (line.m == kMaxRows) least_fma = std::min(least_fma, line.fma_percent);
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
    fmt::print(file, "{{\"threads\": {}, \"read_gb_per_s\": {:.2f}, \"linear\": [\n",
               pool_.num_threads(), Median(reads_));
    for (size_t i = 0; i < lines_.size(); ++i) {
      const Line& line = lines_[i];
      fmt::print(file,
                 "{{\"variant\": \"{}\", \"n\": {}, \"k\": {}, \"m\": {}, \"us\": {:.1f}, "
                 "\"gb_per_s\": {:.2f}, \"gflop_per_s\": {:.2f}, \"read_percent\": {:.1f}, "
                 "\"fma_percent\": {:.1f}}}{}\n",
                 line.variant, line.shape.n, line.shape.k, line.m, line.us, line.gb_per_s,
                 line.gflop_per_s, line.read_percent, line.fma_percent,
                 i + 1 < lines_.size() ? "," : "");
    }
    fmt::print(file, "]}}\n");
    return std::fclose(file) == 0;
  }

 private:
  double ReadGbPerS() {
    reads_.push_back(probe_->ReadGbPerS());
    return reads_.back();
  }

  // 0 where the variant has no instructions of its own.
  double FmaGflopPerS(const char* variant) {
    const double rate = probe_->FmaGflopPerS(variant);
    if (rate > 0) fmas_[variant].push_back(rate);
    return rate;
  }

  std::string FmaText() const {
    std::string text;
    for (const auto& [variant, samples] : fmas_)
      text +=
          fmt::format("{}{} {:.0f} GFLOP/s", text.empty() ? "" : ", ", variant, Median(samples));
    return text;
  }

  // Memory that was not touched for a while: successive calls go round the arena.
  const Bf16* NextWeights(int64_t elements) {
    if (next_weight_ + elements > kArenaElements) next_weight_ = 0;
    const Bf16* weights = arena_.get() + next_weight_;
    next_weight_ += elements;
    return weights;
  }

  Line Measure(const cpu::LinearVariant& variant, const Shape& shape, int64_t m) {
    cpu::LinearParams params;
    params.x = x_.data();
    params.x_stride = params.w_stride = params.k = shape.k;
    params.y = y_.data();
    params.y_stride = params.n = shape.n;
    params.m = m;
    const auto elements = static_cast<double>(shape.n * shape.k);
    std::vector<double> call_seconds, read_ratios, fma_ratios;
    for (int round = 0; round < kRounds; ++round) {
      const double read = ReadGbPerS(), fma = FmaGflopPerS(variant.name);
      int calls = 0;
      double seconds = 0;
      while (seconds < kSampleSeconds) {
        params.w = NextWeights(shape.n * shape.k);
        seconds += Seconds([&] { cpu::Linear(params, pool_, variant.kernel); });
        ++calls;
      }
      call_seconds.push_back(seconds / calls);
      const double rate = elements * 2 * calls / seconds * 1e-9;  // of bytes, and of MACs a row
      read_ratios.push_back(100 * rate / read);
      fma_ratios.push_back(fma > 0 ? 100 * rate * static_cast<double>(m) / fma : 0);
    }
    const double seconds = Median(call_seconds);
    return {variant.name,
            shape,
            m,
            seconds * 1e6,
            elements * 2 / seconds * 1e-9,
            2 * elements * static_cast<double>(m) / seconds * 1e-9,
            Median(read_ratios),
            Median(fma_ratios)};
  }

  void MeasureScan(const ScanCase& scan, const std::vector<float>& rows) {
    SamplingRow row;
    row.temperature = scan.temperature;
    row.top_k = scan.top_k;
    row.top_p = scan.top_p;
    row.min_p = scan.min_p;
    Sampler sampler(kScanVocab);
    const bool only_finite = &scan == &kScans[0];
    std::vector<double> ratios, times;
    for (int round = 0; round < kRounds; ++round) {
      const double read = ReadGbPerS();
      double seconds = 0;
      int calls = 0;
      for (; seconds < kSampleSeconds; ++calls) {
        const std::span<const float> logits(&rows[next_row_++ % kScanRows * kScanVocab],
                                            kScanVocab);
        row.position = next_row_;
        seconds += Seconds([&] {
          if (only_finite)
            Keep(AllFinite(logits));
          else
            Keep(sampler.Sample(logits, row));
        });
      }
      times.push_back(seconds / calls);
      ratios.push_back(100 * kScanVocab * 4e-9 / times.back() / read);
    }
    const double seconds = Median(times);
    fmt::print("{:24} {:9.1f} {:7.2f} {:7.1f}\n", scan.what, seconds * 1e6,
               kScanVocab * 4e-9 / seconds, Median(ratios));
  }

  Options options_;
  WorkerPool pool_;
  size_t next_row_ = 0;
  std::unique_ptr<Bf16[]> arena_;
  int64_t next_weight_ = 0;
  std::vector<float> x_, y_;
  std::unique_ptr<CeilingProbe> probe_;
  std::vector<double> reads_;                        // GB/s
  std::map<std::string, std::vector<double>> fmas_;  // GFLOP/s by variant
  std::vector<Line> lines_;
};

bool ParseOptions(int argc, char** argv, Options& options) {
  options.num_threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 256);
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--scan") {
      options.scan = true;
      options.num_threads = 1;
    } else if (flag == "--plain") {
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
    fmt::print(stderr, "usage: ops_bench [--threads N] [--json FILE] [--plain] | --scan\n");
    return 2;
  }
  lapidary::Bench bench(options);
  if (options.scan) return bench.Scan(), 0;
  bench.Run();
  bench.Print();
  if (!options.json_path.empty() && !bench.WriteJson()) {
    fmt::print(stderr, "cannot write {}\n", options.json_path);
    return 1;
  }
  return 0;
}
