// Which algorithm is fastest for a product of the models' shapes, measured by `op_driver tune` and
// kept here: an algorithm of cuBLASLt, by its attributes, or the own kernel.
#ifndef LAPIDARY_KERNELS_GEMM_GEMM_TABLE_H_
#define LAPIDARY_KERNELS_GEMM_GEMM_TABLE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <tuple>

namespace lapidary::kernels {

// Values of cublasLtMatmulAlgoConfigAttributes_t, in its order.
struct GemmAlgorithm {
  std::array<int32_t, 9> attributes{};
  bool operator==(const GemmAlgorithm&) const = default;
};

// How the own kernel cuts a product of few rows.
struct SwapTiling {
  int32_t splits = 0;      // of K: 1, 2, 4 or 8, one block of a cluster each, summed in their order
  int32_t input_rows = 0;  // of a block: 8, 16, 32, 64, 80 or 128
  int32_t weight_rows = 0;  // of a block: 64 (at most 4 splits) or 128
  bool operator==(const SwapTiling&) const = default;
};

struct GemmChoice {
  int32_t n = 0, k = 0;
  int32_t rows = 0;  // the most rows it is for, one of kGemmRows
  SwapTiling own;    // of the own kernel; without splits the library's algorithm
  GemmAlgorithm algorithm = {};

  bool is_own() const { return own.splits > 0; }
};

// A product takes the entry of the least of these that is not below its rows. They are sizes of
// decode graphs: a step of one row a sequence and the graph it is padded to take the same entry.
inline constexpr std::array<int32_t, 14> kGemmRows{1,   8,   16,  32,   64,   80,   128,
                                                   160, 320, 512, 1024, 2048, 4096, 8192};

// The table's order: by n, k, rows.
constexpr bool IsBefore(const GemmChoice& a, const GemmChoice& b) {
  return std::tuple(a.n, a.k, a.rows) < std::tuple(b.n, b.k, b.rows);
}

// An algorithm is one only for the library that it was measured with.
struct GemmTable {
  size_t library_version = 0;  // cublasLtGetVersion
  int num_sms = 0;
  std::span<const GemmChoice> choices;  // each shape and number of rows once
};
const GemmTable& ShippedGemmTable();

// Null: the table has no such shape, or none for so many rows.
const GemmChoice* FindGemmChoice(const GemmTable& table, int n, int k, int rows);

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_GEMM_GEMM_TABLE_H_
