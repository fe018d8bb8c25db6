#include "kernels/gemm/cublaslt.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "base/check.h"
#include "base/log.h"
#include "base/result.h"

namespace lapidary::kernels {
namespace {

constexpr size_t kWorkspaceBytes = size_t{64} << 20;
constexpr const char* kLibrary = "libcublasLt.so.13";

void CheckBlas(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    DeviceFailed(fmt::format("cuBLASLt {}: status {}", what, static_cast<int>(status)));
}
void CheckCuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) DeviceFailed(fmt::format("{}: {}", what, cudaGetErrorString(error)));
}

// The functions used, under their own names.
struct Library {
  void* handle = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
#define LAPIDARY_FUNCTION(name) decltype(&::name) name = Find<decltype(&::name)>(#name)
  LAPIDARY_FUNCTION(cublasLtCreate);
  LAPIDARY_FUNCTION(cublasLtDestroy);
  LAPIDARY_FUNCTION(cublasLtGetVersion);
  LAPIDARY_FUNCTION(cublasLtMatmul);
  LAPIDARY_FUNCTION(cublasLtMatmulAlgoCheck);
  LAPIDARY_FUNCTION(cublasLtMatmulAlgoConfigGetAttribute);
  LAPIDARY_FUNCTION(cublasLtMatmulAlgoConfigSetAttribute);
  LAPIDARY_FUNCTION(cublasLtMatmulAlgoGetHeuristic);
  LAPIDARY_FUNCTION(cublasLtMatmulAlgoInit);
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

// Of GemmAlgorithm's attributes the last two are 16 bits wide.
size_t AttributeBytes(size_t attribute) {
  return attribute < CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID ? sizeof(int32_t) : sizeof(uint16_t);
}

}  // namespace

struct CublasLt::State {
  using Key = std::tuple<int, int, int, int64_t, int64_t, int64_t, bool>;

  Library library;
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  void* workspace = nullptr;
  bool has_table = false;
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

  GemmAlgorithm Attributes(const cublasLtMatmulAlgo_t& algorithm) const {
    GemmAlgorithm result;
    for (size_t i = 0; i < result.attributes.size(); ++i) {
      size_t written = 0;
      CheckBlas(library.cublasLtMatmulAlgoConfigGetAttribute(
                    &algorithm, static_cast<cublasLtMatmulAlgoConfigAttributes_t>(i),
                    &result.attributes[i], AttributeBytes(i), &written),
                "attribute");
    }
    return result;
  }

  // Nothing where the library refuses it for this shape.
  std::optional<cublasLtMatmulAlgo_t> Restored(const GemmParams& p, const Plan& plan,
                                               const GemmAlgorithm& from) const {
    cublasLtMatmulAlgo_t algorithm{};
    const cudaDataType_t out_type = p.out_f32 ? CUDA_R_32F : CUDA_R_16BF;
    if (library.cublasLtMatmulAlgoInit(
            handle, CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_16BF, out_type, out_type,
            from.attributes[CUBLASLT_ALGO_CONFIG_ID], &algorithm) != CUBLAS_STATUS_SUCCESS)
      return std::nullopt;
    for (size_t i = 1; i < from.attributes.size(); ++i)
      if (library.cublasLtMatmulAlgoConfigSetAttribute(
              &algorithm, static_cast<cublasLtMatmulAlgoConfigAttributes_t>(i), &from.attributes[i],
              AttributeBytes(i)) != CUBLAS_STATUS_SUCCESS)
        return std::nullopt;
    cublasLtMatmulHeuristicResult_t checked{};
    if (library.cublasLtMatmulAlgoCheck(handle, plan.operation, plan.weight, plan.in, plan.out,
                                        plan.out, &algorithm, &checked) != CUBLAS_STATUS_SUCCESS ||
        checked.workspaceSize > kWorkspaceBytes)
      return std::nullopt;
    return algorithm;
  }

  std::optional<cublasLtMatmulAlgo_t> OfTable(const GemmParams& p, const Plan& plan) const {
    if (!has_table) return std::nullopt;
    const GemmChoice* choice = FindGemmChoice(ShippedGemmTable(), p.n, p.k, p.num_rows);
    if (choice == nullptr || choice->is_own()) return std::nullopt;
    const auto algorithm = Restored(p, plan, choice->algorithm);
    if (!algorithm)
      LogWarning("cuBLASLt refuses the table's algorithm for [{},{}] x [{},{}]: its own choice",
                 p.num_rows, p.k, p.n, p.k);
    return algorithm;
  }

  Plan& PlanFor(const GemmParams& p) {
    const Key key{p.num_rows, p.n, p.k, p.in_stride, p.weight_stride, p.out_stride, p.out_f32};
    const auto found = plans.find(key);
    if (found != plans.end()) return found->second;
    Plan plan = MakeDescriptors(p);
    const auto algorithm = OfTable(p, plan);
    plan.algorithm = algorithm ? *algorithm : Candidates(p, plan, 1).front().algo;
    return plans.emplace(key, plan).first->second;
  }

  void Run(const GemmParams& p, const Plan& plan, Stream stream) const {
    const float one = 1.0f, zero = 0.0f;
    CheckBlas(library.cublasLtMatmul(handle, plan.operation, &one, p.weight, plan.weight, p.in,
                                     plan.in, &zero, p.out, plan.out, p.out, plan.out,
                                     &plan.algorithm, workspace, kWorkspaceBytes, stream),
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
  const GemmTable& table = ShippedGemmTable();
  s.has_table = library_version() == table.library_version && NumSms() == table.num_sms;
  if (!s.has_table)
    LogInfo(
        "the products' table is of cuBLASLt {} on {} SMs, this is {} on {}: the library's "
        "own choices",
        table.library_version, table.num_sms, library_version(), NumSms());
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
  state_->Run(params, state_->PlanFor(params), stream);
}

const GemmChoice* CublasLt::Choice(int n, int k, int rows) const {
  return state_->has_table ? FindGemmChoice(ShippedGemmTable(), n, k, rows) : nullptr;
}

std::vector<GemmAlgorithm> CublasLt::Suggested(const GemmParams& params, int most) {
  std::vector<GemmAlgorithm> result;
  for (const cublasLtMatmulHeuristicResult_t& candidate :
       state_->Candidates(params, state_->PlanFor(params), most))
    if (candidate.state == CUBLAS_STATUS_SUCCESS)
      result.push_back(state_->Attributes(candidate.algo));
  return result;
}

bool CublasLt::Use(const GemmParams& params, const GemmAlgorithm& algorithm) {
  Plan& plan = state_->PlanFor(params);
  const auto restored = state_->Restored(params, plan, algorithm);
  if (restored) plan.algorithm = *restored;
  return restored.has_value();
}

size_t CublasLt::library_version() const { return state_->library.cublasLtGetVersion(); }

}  // namespace lapidary::kernels
