#include "gemm_tune.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/cublaslt.h"
#include "kernels/gemm/swap_gemm.h"
#include "ops/cases/model_products.h"
#include "ops/cases/op_case.h"
#include "ops/timing.h"

namespace lapidary {
namespace {

using kernels::CublasLt;
using kernels::GemmAlgorithm;
using kernels::GemmChoice;
using kernels::GemmParams;
using kernels::SwapTiling;

constexpr int64_t kRotatedBytes = int64_t{256} << 20;
constexpr int kManyRows = 320;

// A product with weights in several places, so that none is found in L2, and what follows it.
class Product {
 public:
  Product(CudaDevice& device, const ModelProduct& shape) : device_(device), shape_(shape) {
    TensorSet host(HostDevice());
    weight_ = host.Normal(shape.n, shape.k, 0.03);
    const int64_t copies = std::clamp<int64_t>(kRotatedBytes / host.num_bytes() + 1, 1, kLaunches);
    for (int64_t i = 0; i < copies; ++i) sets_.push_back(host.CopyTo(device));
    TensorSet rows(HostDevice());
    in_index_ = rows.Normal(kernels::kGemmRows.back(), shape.k, 1.0);
    in_ = rows.CopyTo(device);
    out_ = DeviceMemory(device, int64_t{MaxRows()} * shape.n * OutBytes());
    end_ = DeviceMemory(device, int64_t{MaxRows()} * shape.n * OutBytes());
  }

  // Logits are never asked for more rows than a step has that sample.
  int MaxRows() const { return IsHead() ? kManyRows : kernels::kGemmRows.back(); }
  int num_sets() const { return static_cast<int>(sets_.size()); }

  GemmParams Params(int rows, int set) const {
    GemmParams p;
    p.in = (*in_)[in_index_].bf16();
    p.weight = (*sets_[static_cast<size_t>(set)])[weight_].bf16();
    p.out = out_.data();
    p.out_f32 = IsHead();
    p.in_stride = p.weight_stride = shape_.k;
    p.out_stride = shape_.n;
    p.num_rows = rows;
    p.n = static_cast<int>(shape_.n);
    p.k = static_cast<int>(shape_.k);
    return p;
  }

  // Seconds a call, with what the library leaves to another kernel.
  double OfLibrary(CublasLt& blas, int rows) const {
    return Measure(rows, [&](int set) {
      blas.Gemm(Params(rows, set), device_.stream());
      LaunchEnd(rows);
    });
  }

  double OfOwn(int rows, const SwapTiling& tiling) const {
    std::vector<kernels::SwapGemmParams> params;
    for (int set = 0; set < num_sets(); ++set) params.push_back(OwnParams(rows, set, tiling));
    return Measure(rows, [&](int set) {
      kernels::LaunchSwapGemm(params[static_cast<size_t>(set)], device_.stream());
    });
  }

  bool CanBeOwn(int rows) const {
    const int64_t columns = shape_.end == ProductEnd::kGated ? 128 : 4;
    return rows <= kernels::kMaxSwapRows && shape_.n % columns == 0;
  }

 private:
  static constexpr int kLaunches = 20;

  bool IsHead() const {
    return shape_.end == ProductEnd::kCapped || shape_.end == ProductEnd::kLogits;
  }
  int64_t OutBytes() const { return IsHead() ? 4 : 2; }

  // Of few rows behind a kernel that writes them, as in a step: the own kernel fetches weights
  // while that one runs, which a product of the library does not.
  template <typename Launch>
  double Measure(int rows, const Launch& launch) const {
    const int launches = rows > kManyRows ? 3 : kLaunches;
    return MedianSeconds(device_, launches, [&](int i) {
      if (rows <= kernels::kMaxSwapRows) LaunchInput(rows);
      launch(i % num_sets());
    });
  }

  void LaunchInput(int rows) const {
    kernels::ElementwiseParams p;
    p.out = (*in_)[in_index_].bf16();
    p.a = p.out;
    p.a_stride = p.out_stride = shape_.k;
    p.num_rows = rows;
    p.num_cols = static_cast<int>(shape_.k);
    kernels::LaunchAddScale(p, device_.stream());
  }

  void LaunchEnd(int rows) const {
    if (shape_.end == ProductEnd::kCapped) {
      kernels::SoftCapParams p;
      p.x = static_cast<float*>(out_.data());
      p.stride = shape_.n;
      p.num_rows = rows;
      p.num_cols = static_cast<int>(shape_.n);
      p.cap = 30;
      kernels::LaunchSoftCap(p, device_.stream());
    } else if (shape_.end == ProductEnd::kGated || shape_.end == ProductEnd::kGates) {
      const bool gated = shape_.end == ProductEnd::kGated;
      const int64_t width = gated ? shape_.n / 2 : shape_.n;
      kernels::ElementwiseParams p;
      p.a = static_cast<const Bf16*>(out_.data());
      p.b = gated ? p.a + width : p.a;
      p.out = static_cast<Bf16*>(end_.data());
      p.a_stride = p.b_stride = p.out_stride = shape_.n;
      p.num_rows = rows;
      p.num_cols = static_cast<int>(width);
      kernels::LaunchGeluMul(p, device_.stream());
    }
  }

  kernels::SwapGemmParams OwnParams(int rows, int set, const SwapTiling& tiling) const {
    const GemmParams p = Params(rows, set);
    kernels::SwapGemmParams own;
    own.gated = shape_.end == ProductEnd::kGated;
    own.tiling = tiling;
    own.weight_map =
        own.gated ? kernels::MakeGateUpMap(p.weight, 1, p.n / 2, p.k, tiling.weight_rows)
                  : kernels::MakeWeightMap(p.weight, p.n, p.k, p.weight_stride, tiling.weight_rows);
    own.in_box_rows = tiling.input_rows;
    own.in_map = kernels::MakeInputMap(p.in, rows, p.k, p.in_stride, own.in_box_rows);
    if (shape_.end == ProductEnd::kGates) {
      own.up = static_cast<const Bf16*>(end_.data());
      own.up_stride = shape_.n;
    }
    if (shape_.end == ProductEnd::kCapped) own.cap = 30;
    own.num_rows = rows;
    own.n = p.n;
    own.k = p.k;
    own.out = p.out;
    own.out_stride = p.out_stride;
    own.out_f32 = p.out_f32;
    return own;
  }

  CudaDevice& device_;
  ModelProduct shape_;
  std::vector<std::unique_ptr<TensorSet>> sets_;
  std::unique_ptr<TensorSet> in_;
  DeviceMemory out_, end_;
  int weight_ = 0, in_index_ = 0;
};

// Ways to cut a product of up to kMaxSwapRows rows for the own kernel. More than a few blocks a
// multiprocessor wait for one another.
std::vector<SwapTiling> Tilings(const ModelProduct& shape, int rows) {
  std::vector<SwapTiling> tilings;
  const int64_t most = int64_t{8} * kernels::NumSms(), depth = (shape.k + 63) / 64;
  for (const int weight_rows : {128, 64})
    for (const int input_rows : {8, 16, 32, 64, 80, 128}) {
      if (input_rows > kernels::SwapTile(rows) || input_rows * 8 < rows) continue;
      const int row_tiles = (rows + input_rows - 1) / input_rows;
      for (int splits = 1; splits <= weight_rows / 16; splits *= 2) {
        const int64_t blocks = (shape.n + weight_rows - 1) / weight_rows * splits * row_tiles;
        const bool is_cut = splits > 1 || row_tiles > 1;
        if ((splits > 1 && depth < 2 * splits) || (is_cut && blocks > most)) continue;
        tilings.push_back({splits, input_rows, weight_rows});
      }
    }
  return tilings;
}

// Prints what was measured: the library's first suggestion, its best, the own kernel's best.
GemmChoice Best(const ModelProduct& shape, const Product& product, CublasLt& blas, int rows) {
  constexpr int kCandidates = 10, kCandidatesOfMany = 6;
  constexpr double kNone = std::numeric_limits<double>::infinity();
  GemmChoice best;
  best.n = static_cast<int32_t>(shape.n), best.k = static_cast<int32_t>(shape.k);
  best.rows = rows;
  double first = kNone, of_library = kNone, of_own = kNone;
  for (const GemmAlgorithm& algorithm : blas.Suggested(
           product.Params(rows, 0), rows > kManyRows ? kCandidatesOfMany : kCandidates)) {
    if (!blas.Use(product.Params(rows, 0), algorithm)) continue;
    const double seconds = product.OfLibrary(blas, rows);
    if (first == kNone) first = seconds;
    if (seconds >= of_library) continue;
    of_library = seconds;
    best.algorithm = algorithm;
  }
  SwapTiling own;
  const auto tilings = product.CanBeOwn(rows) ? Tilings(shape, rows) : std::vector<SwapTiling>();
  for (const SwapTiling& tiling : tilings) {
    const double seconds = product.OfOwn(rows, tiling);
    if (seconds < of_own) of_own = seconds, own = tiling;
  }
  if (of_own < of_library) best.own = own, best.algorithm = {};
  const double bytes = static_cast<double>(shape.n * shape.k * 2),
               flops = 2.0 * rows * static_cast<double>(shape.n * shape.k);
  const double seconds = std::min(of_own, of_library);
  fmt::print(
      "{:20} [{},{}] x [{},{}]: library {:.2f} -> {:.2f} us, own {:.2f} us ({} splits, {} x {}); "
      "{:.0f} GB/s, {:.1f} TFLOP/s\n",
      shape.what, rows, shape.k, shape.n, shape.k, first * 1e6, of_library * 1e6, of_own * 1e6,
      own.splits, own.weight_rows, own.input_rows, bytes / seconds * 1e-9, flops / seconds * 1e-12);
  std::fflush(stdout);
  return best;
}

bool Write(const std::string& path, const std::string& device_name, size_t library,
           std::vector<GemmChoice> choices) {
  std::sort(choices.begin(), choices.end(), kernels::IsBefore);
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return false;
  fmt::print(file, "// Written by `op_driver tune`: {}, cuBLASLt {}.\n", device_name, library);
  fmt::print(file, "constexpr size_t kLibraryVersion = {};\nconstexpr int kNumSms = {};\n", library,
             kernels::NumSms());
  fmt::print(file,
             "// {{n, k, rows, {{splits, input rows and weight rows of the own kernel}}, "
             "{{the library's attributes}}}}\n");
  fmt::print(file, "constexpr std::array<GemmChoice, {}> kChoices{{{{\n", choices.size());
  for (const GemmChoice& c : choices) {
    if (c.is_own())
      fmt::print(file, "{{{},{},{},{{{},{},{}}}}},\n", c.n, c.k, c.rows, c.own.splits,
                 c.own.input_rows, c.own.weight_rows);
    else
      fmt::print(file, "{{{},{},{},{{}},{{{{{{{}}}}}}}}},\n", c.n, c.k, c.rows,
                 fmt::join(c.algorithm.attributes, ","));
  }
  fmt::print(file, "}}}};\n");
  return std::fclose(file) == 0;
}

}  // namespace

bool TuneGemms(CudaDevice& device, const std::string& filter, int most_rows,
               const std::string& path) {
  CublasLt blas;
  std::vector<GemmChoice> choices;
  for (const ModelProduct& shape : ModelProducts()) {
    if (shape.what.find(filter) == std::string::npos) continue;
    // A drafter's gates and ups may have the shape of its q: the first one stands for both.
    const bool known = std::ranges::any_of(
        choices, [&](const GemmChoice& c) { return c.n == shape.n && c.k == shape.k; });
    if (known) continue;
    const Product product(device, shape);
    for (const int rows : kernels::kGemmRows)
      if (rows <= product.MaxRows() && rows <= most_rows)
        choices.push_back(Best(shape, product, blas, rows));
  }
  const auto measured = choices;
  for (const GemmChoice& shipped : kernels::ShippedGemmTable().choices)
    if (std::ranges::none_of(measured, [&](const GemmChoice& choice) {
          return !IsBefore(choice, shipped) && !IsBefore(shipped, choice);
        }))
      choices.push_back(shipped);
  return Write(path, device.name(), blas.library_version(), std::move(choices));
}

}  // namespace lapidary
