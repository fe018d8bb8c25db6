#include "ops/cases/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>

namespace lapidary {
namespace {

double Value(const Tensor& tensor, int64_t row, int64_t column) {
  const int64_t index = row * tensor.row_stride + column;
  switch (tensor.dtype) {
    case DType::kF32:
      return static_cast<double>(tensor.f32()[index]);
    case DType::kBf16:
      return static_cast<double>(ToFloat(tensor.bf16()[index]));
    case DType::kI32:
      return static_cast<double>(static_cast<const int32_t*>(tensor.data)[index]);
    case DType::kI64:
      return static_cast<double>(tensor.i64()[index]);
  }
  return 0;
}

// The spacing of bf16 at a magnitude.
double Bf16Unit(double magnitude) {
  if (magnitude == 0) return std::ldexp(1.0, -133);
  return std::ldexp(1.0, std::max(std::ilogb(magnitude), -126) - 7);
}

Tensor AsRows(Tensor tensor) {
  // KV bytes are one long vector: rows of 512 give the rms something local.
  constexpr int64_t kRow = 512;
  if (tensor.rank == 1 && tensor.rows() % kRow == 0)
    return MakeTensor(tensor.data, tensor.dtype, tensor.rows() / kRow, kRow);
  if (tensor.rank == 1) return MakeTensor(tensor.data, tensor.dtype, 1, tensor.rows());
  return tensor;
}

}  // namespace

Difference Compare(const Tensor& expected, const Tensor& actual) {
  Difference result;
  double sum = 0;
  const bool exact = expected.dtype == DType::kI32;
  for (int64_t t = 0; t < expected.rows(); ++t) {
    double squares = 0;
    int64_t finite = 0;
    for (int64_t i = 0; i < expected.cols(); ++i) {
      const double x = Value(expected, t, i);
      if (std::isfinite(x)) squares += x * x, ++finite;
    }
    const double rms = finite > 0 ? std::sqrt(squares / static_cast<double>(finite)) : 0;
    for (int64_t i = 0; i < expected.cols(); ++i) {
      const double x = Value(expected, t, i), y = Value(actual, t, i);
      if (std::isnan(x) && std::isnan(y)) continue;
      double units = std::fabs(x - y) / Bf16Unit(std::max(std::fabs(x), rms));
      if (!std::isfinite(x) || !std::isfinite(y) || (exact && x != y))
        units = x == y ? 0 : std::numeric_limits<double>::infinity();
      ++result.num_compared;
      sum += units * units;
      if (units <= result.max_units) continue;
      result.max_units = units;
      result.row = t, result.column = i, result.expected = x, result.actual = y;
    }
  }
  if (result.num_compared > 0)
    result.rms_units = std::sqrt(sum / static_cast<double>(result.num_compared));
  return result;
}

std::vector<int64_t> SampledRows(int64_t num_rows, uint64_t seed) {
  constexpr int64_t kFromALot = 40, kBorders[] = {16, 64, 80, 128, 512, 1024, 2048, 4096};
  std::set<int64_t> rows;
  const auto add = [&](int64_t row) {
    if (row >= 0 && row < num_rows) rows.insert(row);
  };
  for (const int64_t border : kBorders)
    for (const int64_t row : {border - 1, border}) add(row), add(num_rows - 1 - row);
  add(0), add(num_rows - 1);
  std::mt19937_64 rng(seed);
  constexpr size_t kLeast = 64;
  for (int64_t i = 0; i < kFromALot; ++i) add(static_cast<int64_t>(rng() % 0x7fffffff) % num_rows);
  for (int64_t row = 0; row < num_rows && rows.size() < kLeast; ++row) add(row);
  return {rows.begin(), rows.end()};
}

std::string CheckCase(OpCase& op_case, Ops& cpu_ops, Ops& ops, Device& device) {
  constexpr int64_t kManyFlops = 20'000'000'000;
  Device& host = HostDevice();
  TensorSet expected(host);
  op_case.Make(expected);
  const std::unique_ptr<TensorSet> actual = expected.CopyTo(device);
  std::vector<int64_t> rows;
  if (op_case.Flops() > kManyFlops && op_case.num_rows() > 0) {
    rows = SampledRows(op_case.num_rows(), static_cast<uint64_t>(op_case.Flops()));
    op_case.RunRows(cpu_ops, expected, rows);
  } else {
    op_case.Run(cpu_ops, expected);
  }
  op_case.Run(ops, *actual);
  device.Synchronize();
  std::string failures;
  const Tolerance tolerance = op_case.tolerance();
  for (const CaseOutput& output : op_case.Outputs()) {
    const Tensor from = (*actual)[output.tensor];
    std::vector<char> bytes(static_cast<size_t>(from.num_elements() * SizeOf(from.dtype)));
    device.CopyOut(bytes.data(), from.data, static_cast<int64_t>(bytes.size()));
    Tensor got = from;
    got.data = bytes.data();
    Tensor wanted = AsRows(expected[output.tensor]);
    got = AsRows(got);
    if (output.num_columns > 0) {
      wanted = wanted.Cols(output.first_column, output.num_columns);
      got = got.Cols(output.first_column, output.num_columns);
    }
    const Difference d =
        rows.empty() ? Compare(wanted, got)
                     : Compare(RowSample(wanted, rows).tensor(), RowSample(got, rows).tensor());
    if (d.max_units <= tolerance.max_units && d.rms_units <= tolerance.rms_units) continue;
    failures +=
        fmt::format("tensor {}: {:.2f} units (rms {:.3f}) at [{},{}], expected {} got {}; ",
                    output.tensor, d.max_units, d.rms_units, d.row, d.column, d.expected, d.actual);
  }
  return failures;
}

}  // namespace lapidary
