// model_driver: whole models on the GPU in bf16 against the CPU's in f32.
//   model_driver MODEL[:ASSISTANT] ...    checkpoints' folders
//   model_driver small:CONFIGS            dummy weights of the four families (small_model.h)
// Each model reads a prompt in chunks and decodes; logits of the rows and those of drafts are
// compared. The measure is what bf16 costs on the CPU: the GPU may be apart from f32 by twice as
// much, in the mean of the Kullback-Leibler divergence. Exit 1 where it is more.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include "model/solo_session.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/gpu_ops.h"
#include "small_model.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

constexpr int kPrompt = 700, kChunk = 288, kDecoded = 24, kDrafts = 3;
constexpr double kMaxRatio = 2, kNoDivergence = 1e-6;

// What one backend says of one prompt.
struct Answers {
  std::vector<std::vector<float>> target, draft;  // logits by row
};

std::vector<float> Row(const Tensor& logits, int64_t row) {
  const float* values = logits.Rows(row, 1).f32();
  return {values, values + logits.cols()};
}

std::vector<int32_t> Prompt(int vocab_size) {
  std::vector<int32_t> ids(kPrompt + kDecoded);
  uint32_t x = 12345;
  for (int32_t& id : ids) {
    x = x * 1664525u + 1013904223u;
    id = static_cast<int32_t>((x >> 8) % static_cast<uint32_t>(vocab_size));
  }
  return ids;
}

Answers Ask(const Checkpoint& target, const Checkpoint* drafter, Ops& ops, DType dtype,
            KvFold fold = KvFold::kAuto) {
  SoloSession::Options options;
  options.max_tokens = kPrompt + kDecoded + 8;
  options.max_chunk = kChunk;
  options.dtype = dtype;
  options.kv_fold = fold;
  SoloSession session(target, drafter, ops, options);
  const std::vector<int32_t> ids = Prompt(target.config.vocab_size);
  Answers answers;
  std::vector<float> hidden;
  const auto append = [&](int begin, int count, bool all_rows) {
    const StepOutput out = session.Append(
        std::span(ids).subspan(static_cast<size_t>(begin), static_cast<size_t>(count)), all_rows);
    for (int64_t row = 0; row < out.logits.rows(); ++row)
      answers.target.push_back(Row(out.logits, row));
    hidden = Row(out.hidden, out.hidden.rows() - 1);
  };
  for (int begin = 0; begin < kPrompt; begin += kChunk)
    append(begin, std::min(kChunk, kPrompt - begin), false);
  for (int i = 0; i < kDecoded; ++i) append(kPrompt + i, 1, true);
  for (int pass = 0; drafter != nullptr && pass < kDrafts; ++pass) {
    const DraftOutput out = session.Draft(
        ids[static_cast<size_t>(pass)],
        MakeTensor(hidden.data(), DType::kF32, 1, static_cast<int64_t>(hidden.size())),
        DraftPosition::kNewest);
    answers.draft.push_back(Row(out.logits, 0));
    hidden = Row(out.hidden, 0);
  }
  return answers;
}

std::vector<double> LogSoftmax(const std::vector<float>& logits) {
  const double top = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  std::vector<double> result;
  for (const float x : logits) result.push_back(static_cast<double>(x) - top - std::log(sum));
  return result;
}

using Rows = std::vector<std::vector<float>>;

struct Distance {
  double mean = 0, largest = 0;  // divergence of a row
  double logit = 0;              // largest difference
  size_t same_best = 0;
};

Distance Between(const Rows& truth, const Rows& other) {
  Distance d;
  for (size_t row = 0; row < truth.size(); ++row) {
    const std::vector<double> p = LogSoftmax(truth[row]), q = LogSoftmax(other[row]);
    double divergence = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      divergence += std::exp(p[i]) * (p[i] - q[i]);
      const double difference = std::fabs(static_cast<double>(truth[row][i] - other[row][i]));
      d.logit = std::isfinite(difference) ? std::max(d.logit, difference) : INFINITY;
    }
    d.mean += divergence / static_cast<double>(truth.size());
    d.largest = std::isfinite(divergence) ? std::max(d.largest, divergence) : INFINITY;
    d.same_best += std::max_element(p.begin(), p.end()) - p.begin() ==
                   std::max_element(q.begin(), q.end()) - q.begin();
  }
  return d;
}

// A few lines; whether the GPU is as near to f32 as bf16 allows.
bool Compare(const std::string& name, const Rows& truth, const Rows& cpu, const Rows& gpu) {
  const Distance of_cpu = Between(truth, cpu), of_gpu = Between(truth, gpu),
                 of_both = Between(cpu, gpu);
  const bool agrees =
      std::isfinite(of_gpu.logit) && of_gpu.mean <= kMaxRatio * of_cpu.mean + kNoDivergence;
  const auto tell = [&](const char* what, const Distance& d) {
    fmt::print("     {:12} KL mean {:.2e} largest {:.2e}  max |dlogit| {:7.3f}  same best {}\n",
               what, d.mean, d.largest, d.logit, d.same_best);
  };
  fmt::print("{} {}, {} rows\n", agrees ? "ok  " : "FAIL", name, truth.size());
  tell("f32 - CPU", of_cpu);
  tell("f32 - GPU", of_gpu);
  tell("CPU - GPU", of_both);
  std::fflush(stdout);
  return agrees;
}

// A model on the CPU and the same on the GPU.
struct Pair {
  std::unique_ptr<Checkpoint> cpu, gpu;
};

Pair Load(const fs::path& dir, bool dummy, const std::shared_ptr<Ops>& ops) {
  if (dummy)
    return {OrThrow(MakeDummyCheckpoint(dir, uint64_t{32} << 30)),
            OrThrow(MakeDummyCheckpoint(dir, uint64_t{32} << 30, ops))};
  LoadOptions options;
  options.ops = ops;
  return {OrThrow(LoadCheckpoint(dir, {})), OrThrow(LoadCheckpoint(dir, options))};
}

bool CompareModel(const std::string& name, const fs::path& dir, const fs::path& draft_dir,
                  bool dummy, const std::shared_ptr<Ops>& gpu_ops, Ops& cpu_ops) {
  const Pair target = Load(dir, dummy, gpu_ops);
  Pair drafter;
  if (!draft_dir.empty()) drafter = Load(draft_dir, dummy, gpu_ops);
  const Answers truth = Ask(*target.cpu, drafter.cpu.get(), cpu_ops, DType::kF32),
                cpu = Ask(*target.cpu, drafter.cpu.get(), cpu_ops, DType::kBf16);
  bool agrees = true;
  const bool folds = ChooseKvFold(target.gpu->config, KvFold::kAuto, true).folds;
  for (const KvFold fold : {KvFold::kOff, KvFold::kOn}) {
    if (fold == KvFold::kOn && !folds) continue;
    const Answers gpu = Ask(*target.gpu, drafter.gpu.get(), *gpu_ops, DType::kBf16, fold);
    const std::string what = name + (fold == KvFold::kOn ? " folded" : "");
    agrees &= Compare(what, truth.target, cpu.target, gpu.target);
    if (!cpu.draft.empty()) agrees &= Compare(what + " drafts", truth.draft, cpu.draft, gpu.draft);
  }
  return agrees;
}

// `configs` holds the published config.json files by the models' names.
bool CompareSmall(const fs::path& configs, const std::shared_ptr<Ops>& gpu_ops, Ops& cpu_ops) {
  bool agrees = true;
  for (const SmallModel& family : kSmallModels) {
    const fs::path dir =
        WriteSmallModel(configs, family, fs::temp_directory_path() / "lapidary_small");
    agrees &= CompareModel(family.name, dir, dir.string() + "-assistant", true, gpu_ops, cpu_ops);
  }
  return agrees;
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: model_driver [small:CONFIGS | MODEL[:ASSISTANT]] ...\n");
    return 2;
  }
  try {
    const std::shared_ptr<Ops> gpu_ops = OpenGpuOps(BackendKind::kCuda);
    const std::unique_ptr<Ops> cpu_ops = MakeCpuOps(0);
    bool agrees = true;
    for (int i = 1; i < argc; ++i) {
      const std::string argument = argv[i];
      const size_t colon = argument.find(':');
      const std::string first = argument.substr(0, colon),
                        second = colon == std::string::npos ? "" : argument.substr(colon + 1);
      agrees &= first == "small" ? CompareSmall(second, gpu_ops, *cpu_ops)
                                 : CompareModel(fs::path(first).filename().string(), first, second,
                                                false, gpu_ops, *cpu_ops);
    }
    return agrees ? 0 : 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "model_driver: {}\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) { return lapidary::Main(argc, argv); }
