// op_driver: op cases on the GPU.
//   op_driver test [--filter TEXT] [--small] [--cpu]    against the CPU's definition; exit 1 if one
//                                                       differs. --cpu: the definition against
//                                                       itself: the cases are sound. --kernels
//                                                       FILE: the names of the kernels that ran
//   op_driver repeat [--filter TEXT]                    200 times each: the same bits, whichever
//                                                       block ends first
//   op_driver tune --out FILE [--filter TEXT] [--most-rows N]
//                                                       the products' table: entries of shapes
//                                                       named so and of so many rows are measured
//                                                       anew
//   op_driver list                                      of cases, --filter takes those a part of
//                                                       whose name begins so
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <set>
#include <string_view>

#include "gemm_tune.h"
#include "kernels/common/launch.h"
#include "kernels/gemm/gemm_table.h"
#include "ops/cases/compare.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/cuda/cuda_ops.h"

namespace lapidary {
namespace {

struct Options {
  std::string command, filter, out, kernels;
  int most_rows = kernels::kGemmRows.back();
  bool small = false, on_cpu = false;
};

bool Parse(int argc, char** argv, Options& options) {
  if (argc < 2) return false;
  options.command = argv[1];
  for (int i = 2; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--small")
      options.small = true;
    else if (flag == "--cpu")
      options.on_cpu = true;
    else if (flag == "--filter" && i + 1 < argc)
      options.filter = argv[++i];
    else if (flag == "--kernels" && i + 1 < argc)
      options.kernels = argv[++i];
    else if (flag == "--most-rows" && i + 1 < argc)
      options.most_rows = std::atoi(argv[++i]);
    else if (flag == "--out" && i + 1 < argc)
      options.out = argv[++i];
    else
      return false;
  }
  return true;
}

// Some part of the name begins so: gelu_mul/ is not linear_gelu_mul/.
bool Wanted(const OpCase& op_case, const Options& options) {
  return ("/" + op_case.Name()).find("/" + options.filter) != std::string::npos;
}

// Under a sanitizer a kernel runs a thousand times slower.
bool IsSmall(OpCase& op_case) {
  constexpr int64_t kBytes = int64_t{8} << 20, kFlops = 500'000'000;
  if (op_case.Flops() > kFlops || op_case.Bytes() > kBytes) return false;
  Device& host = HostDevice();
  TensorSet set(host);
  op_case.Make(set);
  return op_case.Bytes() <= kBytes && set.num_bytes() <= 16 * kBytes;  // some know it only now
}

std::set<const void*> launched;

bool WriteKernels(const std::string& path) {
  std::set<std::string> names;
  for (const void* kernel : launched) {
    const char* name = nullptr;
    if (cudaFuncGetName(&name, kernel) == cudaSuccess) names.insert(name);
  }
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return false;
  for (const std::string& name : names) fmt::print(file, "{}\n", name);
  return std::fclose(file) == 0;
}

int Test(const Options& options, Device& device, Ops& ops) {
  const std::unique_ptr<Ops> cpu = MakeCpuOps(0);
  int passed = 0, failed = 0, large = 0;
  kernels::launch_observer = [](const void* kernel) { launched.insert(kernel); };
  for (const auto& op_case : AllOpCases()) {
    if (!Wanted(*op_case, options) || op_case->only_bench()) continue;
    if (options.small && !IsSmall(*op_case)) {
      ++large;
      continue;
    }
    const std::string difference = CheckCase(*op_case, *cpu, ops, device);
    if (difference.empty()) {
      ++passed;
    } else {
      ++failed;
      fmt::print("FAIL {}: {}\n", op_case->Name(), difference);
    }
  }
  fmt::print("{} cases passed, {} failed, {} too large\n", passed, failed, large);
  if (!options.kernels.empty() && !WriteKernels(options.kernels)) {
    fmt::print(stderr, "cannot write {}\n", options.kernels);
    return 1;
  }
  return failed == 0 && passed + large > 0 ? 0 : 1;
}

// Bits of the case's outputs.
std::vector<char> OutputBytes(const OpCase& op_case, const TensorSet& set) {
  std::vector<char> bytes;
  for (const CaseOutput& output : op_case.Outputs()) {
    const Tensor tensor = set[output.tensor];
    const size_t begin = bytes.size();
    bytes.resize(begin + static_cast<size_t>(tensor.num_elements() * SizeOf(tensor.dtype)));
    set.device().CopyOut(bytes.data() + begin, tensor.data,
                         static_cast<int64_t>(bytes.size() - begin));
  }
  return bytes;
}

// How many of the repeats give other bits than the first run.
int CountOther(OpCase& op_case, const TensorSet& host, Device& device, Ops& ops) {
  constexpr int kRepeats = 200;
  const std::unique_ptr<TensorSet> set = host.CopyTo(device);
  std::vector<char> first;
  int other = 0;
  for (int i = 0; i <= kRepeats; ++i) {
    for (const CaseOutput& output : op_case.Outputs()) set->Restore(output.tensor, host);
    op_case.Run(ops, *set);
    std::vector<char> bytes = OutputBytes(op_case, *set);
    if (i == 0)
      first = std::move(bytes);
    else
      other += bytes != first;
  }
  return other;
}

int Repeat(const Options& options, Device& device, Ops& ops) {
  constexpr int64_t kMaxBytes = int64_t{256} << 20, kMaxOutputBytes = kMaxBytes / 8;
  int same = 0, changing = 0;
  for (const auto& op_case : AllOpCases()) {
    if (!Wanted(*op_case, options) || op_case->only_bench()) continue;
    TensorSet host(HostDevice());
    op_case->Make(host);
    int64_t output_bytes = 0;
    for (const CaseOutput& output : op_case->Outputs())
      output_bytes += host[output.tensor].num_elements() * SizeOf(host[output.tensor].dtype);
    if (host.num_bytes() > kMaxBytes || output_bytes > kMaxOutputBytes) continue;
    const int other = CountOther(*op_case, host, device, ops);
    ++(other == 0 ? same : changing);
    if (other > 0) fmt::print("FAIL {}: {} of 200 repeats differ\n", op_case->Name(), other);
  }
  fmt::print("{} cases give the same bits 200 times, {} do not\n", same, changing);
  return changing == 0 ? 0 : 1;
}

int Main(int argc, char** argv) {
  Options options;
  if (!Parse(argc, argv, options)) {
    fmt::print(stderr,
               "usage: op_driver test|repeat|tune|list [--filter TEXT] [--small] [--cpu] "
               "[--kernels FILE] [--out FILE] [--most-rows N]\n");
    return 2;
  }
  if (options.command == "list") {
    for (const auto& op_case : AllOpCases())
      if (Wanted(*op_case, options)) fmt::print("{}\n", op_case->Name());
    return 0;
  }
  if (options.on_cpu) return Test(options, HostDevice(), *MakeCpuOps(0));
  try {
    std::unique_ptr<CudaDevice> opened = OpenCudaDevice(0);
    CudaDevice& device = *opened;
    if (options.command == "tune")
      return TuneGemms(device, options.filter, options.most_rows, options.out) ? 0 : 1;
    const std::unique_ptr<Ops> ops = MakeCudaOps(std::move(opened));
    return options.command == "repeat" ? Repeat(options, device, *ops)
                                       : Test(options, device, *ops);
  } catch (const std::exception& error) {
    fmt::print(stderr, "op_driver: {}\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) { return lapidary::Main(argc, argv); }
