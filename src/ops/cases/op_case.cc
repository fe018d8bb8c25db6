#include "ops/cases/op_case.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace lapidary {
namespace {

Tensor Shape(DType dtype, int64_t rows, int64_t cols) {
  return MakeTensor(nullptr, dtype, rows, cols);
}

// Values for tensors of any size: large ones repeat stretches of a pool from random places.
std::vector<Bf16> NormalValues(std::mt19937_64& rng, int64_t count, double deviation, double mean) {
  constexpr size_t kPool = size_t{1} << 20, kStretch = 4096;
  std::normal_distribution<double> normal(mean, deviation);
  std::vector<Bf16> values(static_cast<size_t>(count));
  for (size_t i = 0; i < std::min(values.size(), kPool); ++i)
    values[i] = ToBf16(static_cast<float>(normal(rng)));
  for (size_t i = kPool; i < values.size(); i += kStretch) {
    const size_t from = rng() % (kPool - kStretch);
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(from),
                std::min(kStretch, values.size() - i),
                values.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return values;
}

}  // namespace

int TensorSet::Push(const Tensor& shape, const void* values) {
  Item item;
  const int64_t bytes = shape.num_elements() * SizeOf(shape.dtype);
  item.memory = DeviceMemory(device_, bytes);
  item.tensor = shape;
  item.tensor.data = item.memory.data();
  if (values != nullptr)
    device_.CopyIn(item.tensor.data, values, bytes);
  else
    device_.Fill(item.tensor.data, 0xff, bytes);
  items_.push_back(std::move(item));
  return static_cast<int>(items_.size()) - 1;
}

int TensorSet::Add(DType dtype, int64_t rows, int64_t cols, const void* values) {
  return Push(Shape(dtype, rows, cols), values);
}
int TensorSet::Vector(DType dtype, int64_t count, const void* values) {
  return Push(MakeTensor(nullptr, dtype, count), values);
}
int TensorSet::Normal(int64_t rows, int64_t cols, double deviation, double mean) {
  const std::vector<Bf16> values = NormalValues(rng_, rows * cols, deviation, mean);
  return Push(Shape(DType::kBf16, rows, cols), values.data());
}
int TensorSet::NormalVector(int64_t count, double deviation, double mean) {
  const std::vector<Bf16> values = NormalValues(rng_, count, deviation, mean);
  return Push(MakeTensor(nullptr, DType::kBf16, count), values.data());
}
int TensorSet::Ids(const std::vector<int32_t>& ids) {
  return Push(MakeTensor(nullptr, DType::kI32, static_cast<int64_t>(ids.size())), ids.data());
}
int TensorSet::Output(DType dtype, int64_t rows, int64_t cols) {
  return Push(Shape(dtype, rows, cols), nullptr);
}
int TensorSet::Bytes(int64_t bytes) {
  return Push(MakeTensor(nullptr, DType::kBf16, bytes / 2), nullptr);
}

std::unique_ptr<TensorSet> TensorSet::CopyTo(Device& device) const {
  auto copy = std::make_unique<TensorSet>(device);
  for (const Item& item : items_) copy->Push(item.tensor, item.memory.data());
  return copy;
}

void TensorSet::Restore(int index, const TensorSet& from) {
  const Item& item = from.items_.at(static_cast<size_t>(index));
  device_.CopyIn((*this)[index].data, item.memory.data(), item.memory.bytes());
}

int64_t TensorSet::num_bytes() const {
  int64_t bytes = 0;
  for (const Item& item : items_) bytes += item.memory.bytes();
  return bytes;
}

namespace {

char* RowOf(const Tensor& tensor, int64_t row) {
  return static_cast<char*>(tensor.data) + row * tensor.row_stride * SizeOf(tensor.dtype);
}

}  // namespace

RowSample::RowSample(const Tensor& whole, std::span<const int64_t> rows)
    : rows_(rows.begin(), rows.end()),
      tensor_(Shape(whole.dtype, static_cast<int64_t>(rows.size()), whole.cols())) {
  bytes_.resize(static_cast<size_t>(tensor_.rows() * row_bytes()));
  tensor_.data = bytes_.data();
  for (int64_t i = 0; i < tensor_.rows(); ++i)
    std::memcpy(RowOf(tensor_, i), RowOf(whole, rows_[static_cast<size_t>(i)]),
                static_cast<size_t>(row_bytes()));
}

void RowSample::CopyBack(const Tensor& whole) const {
  for (int64_t i = 0; i < tensor_.rows(); ++i)
    std::memcpy(RowOf(whole, rows_[static_cast<size_t>(i)]), RowOf(tensor_, i),
                static_cast<size_t>(row_bytes()));
}

void OpCase::RunRows(Ops&, const TensorSet&, std::span<const int64_t>) {
  CHECK(false, "{} has no rows of its own", Name());
}

OpCases AllOpCases() {
  OpCases cases;
  AddElementwiseCases(cases);
  AddLinearCases(cases);
  AddAttentionCases(cases);
  AddMoeCases(cases);
  AddSamplingCases(cases);
  AddSlotCases(cases);
  return cases;
}

}  // namespace lapidary
