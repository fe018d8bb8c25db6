#include "kernels/gemm/cublaslt.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <map>
#include <tuple>
#include <vector>

#include "base/check.h"
#include "base/result.h"

namespace lapidary::kernels {
namespace {

constexpr size_t kWorkspaceBytes = size_t{64} << 20;
constexpr const char* kLibrary = "libcublasLt.so.13";

void CheckBlas(cublasStatus_t status, const char* what) {
  CHECK(status == CUBLAS_STATUS_SUCCESS, "cuBLASLt {}: status {}", what, static_cast<int>(status));
}
void CheckCuda(cudaError_t error, const char* what) {
  CHECK(error == cudaSuccess, "{}: {}", what, cudaGetErrorString(error));
}

// The functions used, under their own names.
struct Library {
  void* handle = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
#define LAPIDARY_FUNCTION(name) decltype(&::name) name = Find<decltype(&::name)>(#name)
  LAPIDARY_FUNCTION(cublasLtCreate);
  LAPIDARY_FUNCTION(cublasLtDestroy);
  LAPIDARY_FUNCTION(cublasLtMatmul);
  LAPIDARY_FUNCTION(cublasLtMatmulAlgoGetHeuristic);
  LAPIDARY_FUNCTION(cublasLtMatmulDescCreate);
  LAPIDARY_FUNCTION(cublasLtMatmulDescDestroy);
  LAPIDARY_FUNCTION(cublasLtMatmulDescSetAttribute);
  LAPIDARY_FUNCTION(cublasLtMatrixLayoutCreate);
  LAPIDARY_FUNCTION(cublasLtMatrixLayoutDestroy);
  LAPIDARY_FUNCTION(cublasLtMatmulPreferenceCreate);
  LAPIDARY_FUNCTION(cublasLtMatmulPreferenceDestroy);
  LAPIDARY_FUNCTION(cublasLtMatmulPreferenceSetAttribute);
#undef LAPIDARY_FUNCTION

 private:
  template <typename Function>
  Function Find(const char* name) const {
    if (handle == nullptr)
      throw StartupError(
          fmt::format("cannot open {}: {}; install cuBLAS of CUDA 13 or use --backend cpu",
                      kLibrary, dlerror()));
    void* found = dlsym(handle, name);
    if (found == nullptr) throw StartupError(fmt::format("{} has no {}", kLibrary, name));
    return reinterpret_cast<Function>(found);
  }
};

// One shape with its descriptors and the algorithm chosen for it. In the library's column-major
// terms: D [N,T] = W [K,N]^T x [K,T].
struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t weight = nullptr, in = nullptr, out = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
};

}  // namespace

struct CublasLt::State {
  using Key = std::tuple<int, int, int, int64_t, int64_t, int64_t, bool>;

  Library library;
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  void* workspace = nullptr;
  std::map<Key, Plan> plans;

  Plan MakeDescriptors(const GemmParams& p) const {
    Plan plan;
    CheckBlas(library.cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
              "descriptor");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    CheckBlas(library.cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                     &transposed, sizeof(transposed)),
              "transpose");
    const auto rows = static_cast<uint64_t>(p.num_rows), n = static_cast<uint64_t>(p.n),
               k = static_cast<uint64_t>(p.k);
    CheckBlas(library.cublasLtMatrixLayoutCreate(&plan.weight, CUDA_R_16BF, k, n, p.weight_stride),
              "layout");
    CheckBlas(library.cublasLtMatrixLayoutCreate(&plan.in, CUDA_R_16BF, k, rows, p.in_stride),
              "layout");
    CheckBlas(library.cublasLtMatrixLayoutCreate(&plan.out, p.out_f32 ? CUDA_R_32F : CUDA_R_16BF, n,
                                                 rows, p.out_stride),
              "layout");
    return plan;
  }

  std::vector<cublasLtMatmulHeuristicResult_t> Candidates(const GemmParams& p, const Plan& plan,
                                                          int most) const {
    std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<size_t>(most));
    int found = 0;
    CheckBlas(library.cublasLtMatmulAlgoGetHeuristic(handle, plan.operation, plan.weight, plan.in,
                                                     plan.out, plan.out, preference, most,
                                                     results.data(), &found),
              "heuristic");
    CHECK(found > 0, "cuBLASLt has no algorithm for [{},{}] x [{},{}]", p.num_rows, p.k, p.n, p.k);
    results.resize(static_cast<size_t>(found));
    return results;
  }

  Plan& PlanFor(const GemmParams& p) {
    const Key key{p.num_rows, p.n, p.k, p.in_stride, p.weight_stride, p.out_stride, p.out_f32};
    const auto found = plans.find(key);
    if (found != plans.end()) return found->second;
    Plan plan = MakeDescriptors(p);
    plan.algorithm = Candidates(p, plan, 1).front().algo;
    return plans.emplace(key, plan).first->second;
  }

  void Run(const GemmParams& p, const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
           Stream stream) const {
    const float one = 1.0f, zero = 0.0f;
    CheckBlas(library.cublasLtMatmul(handle, plan.operation, &one, p.weight, plan.weight, p.in,
                                     plan.in, &zero, p.out, plan.out, p.out, plan.out, &algorithm,
                                     workspace, kWorkspaceBytes, stream),
              "matmul");
  }
};

CublasLt::CublasLt() : state_(std::make_unique<State>()) {
  State& s = *state_;
  CheckBlas(s.library.cublasLtCreate(&s.handle), "handle");
  CheckBlas(s.library.cublasLtMatmulPreferenceCreate(&s.preference), "preference");
  const uint64_t bytes = kWorkspaceBytes;
  CheckBlas(s.library.cublasLtMatmulPreferenceSetAttribute(
                s.preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof(bytes)),
            "workspace");
  // The default also lets split-K partials be summed in bf16.
  const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  CheckBlas(s.library.cublasLtMatmulPreferenceSetAttribute(
                s.preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
                sizeof(reductions)),
            "reduction");
  CheckCuda(cudaMalloc(&s.workspace, kWorkspaceBytes), "cuBLASLt workspace");
}

CublasLt::~CublasLt() {
  State& s = *state_;
  for (auto& [key, plan] : s.plans) {
    s.library.cublasLtMatmulDescDestroy(plan.operation);
    for (cublasLtMatrixLayout_t layout : {plan.weight, plan.in, plan.out})
      s.library.cublasLtMatrixLayoutDestroy(layout);
  }
  cudaFree(s.workspace);
  s.library.cublasLtMatmulPreferenceDestroy(s.preference);
  s.library.cublasLtDestroy(s.handle);
}

void CublasLt::Gemm(const GemmParams& params, Stream stream) {
  if (params.num_rows == 0) return;
  const Plan& plan = state_->PlanFor(params);
  state_->Run(params, plan, plan.algorithm, stream);
}

void CublasLt::Tune(const GemmParams& params, Stream stream, int candidates) {
  constexpr int kRepeats = 10;
  Plan& plan = state_->PlanFor(params);
  cudaEvent_t start = nullptr, stop = nullptr;
  CheckCuda(cudaEventCreate(&start), "cudaEventCreate");
  CheckCuda(cudaEventCreate(&stop), "cudaEventCreate");
  float best = 0;
  for (const cublasLtMatmulHeuristicResult_t& candidate :
       state_->Candidates(params, plan, candidates)) {
    if (candidate.state != CUBLAS_STATUS_SUCCESS) continue;
    state_->Run(params, plan, candidate.algo, stream);
    CheckCuda(cudaEventRecord(start, stream), "cudaEventRecord");
    for (int i = 0; i < kRepeats; ++i) state_->Run(params, plan, candidate.algo, stream);
    CheckCuda(cudaEventRecord(stop, stream), "cudaEventRecord");
    CheckCuda(cudaEventSynchronize(stop), "cudaEventSynchronize");
    float ms = 0;
    CheckCuda(cudaEventElapsedTime(&ms, start, stop), "cudaEventElapsedTime");
    if (best != 0 && ms >= best) continue;
    best = ms;
    plan.algorithm = candidate.algo;
  }
  cudaEventDestroy(start);
  cudaEventDestroy(stop);
}

}  // namespace lapidary::kernels
