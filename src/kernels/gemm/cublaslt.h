// CublasLt: dense products by the library, opened at first need with dlopen. Sums are kept in f32
// throughout: split-K partials too.
#ifndef LAPIDARY_KERNELS_GEMM_CUBLASLT_H_
#define LAPIDARY_KERNELS_GEMM_CUBLASLT_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "base/bf16.h"
#include "kernels/common/launch.h"
#include "kernels/gemm/gemm_table.h"

namespace lapidary::kernels {

// out = in weight^T.
struct GemmParams {
  const Bf16* in = nullptr;      // [T,K]
  const Bf16* weight = nullptr;  // [N,K]
  void* out = nullptr;           // [T,N] bf16, or f32 with out_f32
  int64_t in_stride = 0, weight_stride = 0, out_stride = 0;
  int num_rows = 0, n = 0, k = 0;
  bool out_f32 = false;
};

class CublasLt {
 public:
  // Takes 64 MiB of device memory. Throws StartupError when the library cannot be opened.
  CublasLt();
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  // The first call of a shape takes its algorithm from the shipped table, or else the library's
  // first suggestion; later ones use it again.
  void Gemm(const GemmParams& params, Stream stream);
  // The entry of the shipped table; null: it has none, or is of another library or machine.
  const GemmChoice* Choice(int n, int k, int rows) const;

  // What the library suggests for a shape, best first, and the choice of one of them; false: it
  // refuses.
  std::vector<GemmAlgorithm> Suggested(const GemmParams& params, int most);
  bool Use(const GemmParams& params, const GemmAlgorithm& algorithm);
  size_t library_version() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lapidary::kernels

#endif  // LAPIDARY_KERNELS_GEMM_CUBLASLT_H_
