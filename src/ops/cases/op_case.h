// OpCase: one call of an op with its shapes, inputs and outputs. One list of cases serves the
// comparison of a backend with the CPU's definition, the sanitizers and the kernel bench.
#ifndef LAPIDARY_OPS_CASES_OP_CASE_H_
#define LAPIDARY_OPS_CASES_OP_CASE_H_

#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "device/device.h"
#include "ops/ops.h"

namespace lapidary {

inline size_t Index(int64_t value) { return static_cast<size_t>(value); }

// The tensors of one call, each its own allocation of exact size. Made on the host; CopyTo brings
// the same values to a device.
class TensorSet {
 public:
  explicit TensorSet(Device& device, uint64_t seed = 1) : device_(device), rng_(seed) {}

  int Add(DType dtype, int64_t rows, int64_t cols, const void* values);
  int Vector(DType dtype, int64_t count, const void* values);
  // bf16 of a normal distribution around `mean`.
  int Normal(int64_t rows, int64_t cols, double deviation, double mean = 0);
  int NormalVector(int64_t count, double deviation, double mean = 0);
  int Ids(const std::vector<int32_t>& ids);  // i32 [n]
  // Filled with NaN, so that what is not written shows.
  int Output(DType dtype, int64_t rows, int64_t cols);
  int Bytes(int64_t bytes);  // all bits set: NaN as bf16 and as f32

  Tensor operator[](int index) const { return items_.at(static_cast<size_t>(index)).tensor; }
  std::unique_ptr<TensorSet> CopyTo(Device& device) const;
  // Gives a tensor back the values it has in the set this is a copy of.
  void Restore(int index, const TensorSet& from);
  int64_t num_bytes() const;
  std::mt19937_64& rng() { return rng_; }
  Device& device() const { return device_; }

 private:
  struct Item {
    DeviceMemory memory;
    Tensor tensor;
  };
  int Push(const Tensor& shape, const void* values);

  Device& device_;
  std::mt19937_64 rng_;
  std::vector<Item> items_;
};

// Part of a tensor that an op writes. Width 0: all columns.
struct CaseOutput {
  int tensor = 0;
  int64_t first_column = 0, num_columns = 0;
};

// The largest error allowed, in bf16 units of max(|reference|, rms of the reference row); rms error
// at most half a unit.
struct Tolerance {
  double max_units = 1;
  double rms_units = 0.5;
};
inline constexpr Tolerance kElementwiseTolerance{1, 0.5}, kProductTolerance{2, 0.5};
// Attention: kernels and definition round the same weights to bf16 and divide by the sum of the
// rounded ones. They differ where a weight, known as well as f32 knows its score, lies at the
// border of two bf16: it then falls to other sides and moves its output by 2^-8 (v - o) / S, if it
// is one of the largest (1/2 to 1), where S is the sum of weights. A unit is at least 2^-8 of the
// row's rms. With n such weights S >= n / 2, o has the deviation of V over sqrt(n), and v - o that
// of V times sqrt(1 - 1/n): for a v - o of z deviations 2 z sqrt(n - 1) / n units, z at n = 2 and
// less otherwise. The limit is four deviations of one such weight, which bf16 itself cannot avoid;
// how rare they are the rms shows, a tenth of what is allowed to a product.
inline constexpr Tolerance kAttentionTolerance{4, 0.05};

class OpCase {
 public:
  virtual ~OpCase() = default;
  virtual std::string Name() const = 0;
  // Creates the tensors; called once on the host.
  virtual void Make(TensorSet& set) = 0;
  virtual void Run(Ops& ops, const TensorSet& set) = 0;
  virtual std::vector<CaseOutput> Outputs() const = 0;
  virtual Tolerance tolerance() const { return kElementwiseTolerance; }
  // What a call must read and write once, and its arithmetic.
  virtual int64_t Bytes() const = 0;
  virtual int64_t Flops() const { return 0; }
  // Rows of the outputs where RunRows can compute some of them alone, which is enough for cases
  // whose definition would take minutes; 0: it cannot.
  virtual int64_t num_rows() const { return 0; }
  // Writes these rows (ascending) of the outputs; all on the host.
  virtual void RunRows(Ops& ops, const TensorSet& set, std::span<const int64_t> rows);
  // Only timed: the definition would take minutes.
  virtual bool only_bench() const { return false; }
  // Belongs to the table of the bench.
  virtual bool in_bench() const { return false; }
};

// Some rows of a tensor on the host, behind one another.
class RowSample {
 public:
  RowSample(const Tensor& whole, std::span<const int64_t> rows);
  Tensor tensor() const { return tensor_; }
  void CopyBack(const Tensor& whole) const;

 private:
  int64_t row_bytes() const { return tensor_.cols() * SizeOf(tensor_.dtype); }

  std::vector<int64_t> rows_;
  std::vector<char> bytes_;
  Tensor tensor_;
};

using OpCases = std::vector<std::unique_ptr<OpCase>>;

void AddElementwiseCases(OpCases& cases);
void AddLinearCases(OpCases& cases);
void AddAttentionCases(OpCases& cases);
void AddMoeCases(OpCases& cases);
void AddSamplingCases(OpCases& cases);
void AddSlotCases(OpCases& cases);
OpCases AllOpCases();

}  // namespace lapidary

#endif  // LAPIDARY_OPS_CASES_OP_CASE_H_
