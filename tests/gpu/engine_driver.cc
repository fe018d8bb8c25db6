// engine_driver: what a request gets on the GPU must not depend on its company, nor on drafts.
//   engine_driver MODEL[:ASSISTANT] ...     checkpoints; `dummy=` before a folder: random weights
//   engine_driver padding=CONFIGS           padding of graphs instead (padding.h)
// Requests run alone, in a crowd, in a crowd with drafts, and with the steps not overlapped; tokens
// and the bits of their log probabilities are compared. In batch-invariant mode all must be equal.
// The device's free memory must be what it was when the engine was ready.
// Otherwise differences are counted, with the gap between the two best tokens where the first one
// is; some bits must differ, or the comparison sees nothing. Exit 1 where this does not hold.
#include <algorithm>
#include <bit>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "ops/gpu_ops.h"
#include "padding.h"
#include "small_model.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

constexpr int kCrowd = 80, kAlone = 8, kTokens = 48;

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<TokenLogprobs> logprobs;
};

Request MakeRequest(int index, int vocab_size, bool drafts) {
  Request request;
  request.id = static_cast<uint64_t>(index) + 1;
  uint32_t x = 77u + static_cast<uint32_t>(index);
  for (int i = 0; i < 3 + index * 37 % 400; ++i) {
    x = x * 1664525u + 1013904223u;
    request.prompt.push_back(static_cast<int32_t>((x >> 8) % static_cast<uint32_t>(vocab_size)));
  }
  request.max_tokens = kTokens;
  request.sampling.temperature = index % 2 == 0 ? 0.0f : 1.0f;
  request.sampling.top_k = index % 4 == 1 ? 64 : 0;
  request.sampling.seed = static_cast<uint64_t>(index);
  request.sampling.ignore_eos = true;
  request.sampling.num_logprobs = 2;
  if (index % 7 == 3) request.sampling.repetition_penalty = 1.1f;
  if (!drafts) request.max_drafts = 0;
  return request;
}

class Driver {
 public:
  Driver(fs::path target, fs::path drafter, bool dummy)
      : target_(std::move(target)), drafter_(std::move(drafter)), dummy_(dummy) {}

  // With the cache folded and not, where it can be.
  bool Run() {
    const ModelConfig config = OrThrow(ReadModelConfig(target_));
    bool good = true;
    for (const KvFold fold : {KvFold::kOff, KvFold::kOn}) {
      if (fold == KvFold::kOn && !ChooseKvFold(config, KvFold::kAuto, true).folds) continue;
      fold_ = fold;
      // Of its own: what one engine keeps for itself goes with them.
      ops_ = OpenGpuOps(BackendKind::kCuda);
      good &= RunLayout();
    }
    return good;
  }

 private:
  // Two lines or more; whether the invariant run was one.
  bool RunLayout() {
    bool good = true;
    for (const bool invariant : {false, true}) {
      const std::vector<Answer> crowd = Ask(invariant, true, false, kCrowd, kCrowd);
      int num_different = 0;
      const auto compare = [&](const char* what, const std::vector<Answer>& other) {
        num_different += Compare(invariant, what, crowd, other);
      };
      compare("alone", Ask(invariant, true, false, kAlone, 1));
      compare("not overlapped", Ask(invariant, false, false, kCrowd, kCrowd));
      if (!drafter_.empty()) compare("with drafts", Ask(invariant, true, true, kCrowd, kCrowd));
      const bool holds = (num_different == 0) == invariant;
      fmt::print("{} {}{}, {}: {} answers differ from the crowd's\n", holds ? "ok  " : "FAIL",
                 target_.filename().string(), fold_ == KvFold::kOn ? " folded" : "",
                 invariant ? "batch-invariant" : "fastest", num_different);
      std::fflush(stdout);
      good &= holds;
    }
    return good;
  }

  std::unique_ptr<Checkpoint> Load(const fs::path& dir) const {
    if (dummy_) return OrThrow(MakeDummyCheckpoint(dir, uint64_t{1} << 40, ops_));
    LoadOptions options;
    options.ops = ops_;
    return OrThrow(LoadCheckpoint(dir, options));
  }

  std::vector<Answer> Ask(bool invariant, bool overlap, bool drafts, int count, int at_once) {
    EngineOptions options;
    options.max_model_len = 1024;
    options.max_running_requests = kCrowd;
    options.prefix_cache = false;
    options.batch_invariant = invariant;
    options.overlap = overlap;
    options.num_draft_tokens = 3;
    options.kv_fold = fold_;
    auto drafter = drafts ? Load(drafter_) : nullptr;
    Engine engine(Load(target_), std::move(drafter), options);
    const int64_t free_bytes = ops_->device().free_bytes();
    std::vector<Answer> answers(static_cast<size_t>(count));
    std::mutex mutex;
    std::condition_variable changed;
    int num_live = 0, num_accepted = 0;
    for (int i = 0; i < count; ++i) {
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return num_live < at_once; });
        ++num_live;
      }
      const Status status = engine.Submit(
          MakeRequest(i, engine.config().vocab_size, drafts), [&, i](TokenEvent&& event) {
            const std::lock_guard lock(mutex);
            Answer& answer = answers[static_cast<size_t>(i)];
            answer.tokens.insert(answer.tokens.end(), event.tokens.begin(), event.tokens.end());
            std::move(event.logprobs.begin(), event.logprobs.end(),
                      std::back_inserter(answer.logprobs));
            if (event.finish == FinishReason::kNone) return;
            num_accepted += event.accepted_tokens;
            --num_live;
            changed.notify_all();
          });
      CHECK(status.ok(), "{}", status.error().message);
    }
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return num_live == 0; });
    if (drafts) fmt::print("     {} drafts accepted\n", num_accepted);
    CHECK(ops_->device().free_bytes() == free_bytes, "{} bytes were free when ready, now {}",
          free_bytes, ops_->device().free_bytes());
    return answers;
  }

  // How many answers differ; of those with different tokens a line each.
  static int Compare(bool invariant, const char* what, const std::vector<Answer>& expected,
                     const std::vector<Answer>& actual) {
    int num_different = 0, num_tokens_differ = 0;
    float widest = 0;
    for (size_t i = 0; i < actual.size(); ++i) {
      const Answer &a = expected[i], &b = actual[i];
      CHECK(a.tokens.size() == kTokens && a.logprobs.size() == kTokens &&
                b.tokens.size() == kTokens && b.logprobs.size() == kTokens,
            "an answer of {} tokens", b.tokens.size());
      const auto [first, other] = std::mismatch(a.tokens.begin(), a.tokens.end(), b.tokens.begin());
      if (first != a.tokens.end()) {
        ++num_tokens_differ;
        const TokenLogprobs& at = a.logprobs[static_cast<size_t>(first - a.tokens.begin())];
        if (i % 2 == 0) widest = std::max(widest, at.top[0].second - at.top[1].second);
      }
      bool same = first == a.tokens.end();
      for (size_t t = 0; same && t < kTokens; ++t)
        same = std::bit_cast<uint32_t>(a.logprobs[t].logprob) ==
               std::bit_cast<uint32_t>(b.logprobs[t].logprob);
      num_different += !same;
    }
    fmt::print("     {} {}: {} of {} differ in bits, {} in tokens (greedy: at gaps up to {:.4f})\n",
               invariant ? "batch-invariant" : "fastest", what, num_different, actual.size(),
               num_tokens_differ, widest);
    std::fflush(stdout);
    return num_different;
  }

  const fs::path target_, drafter_;
  const bool dummy_;
  KvFold fold_ = KvFold::kAuto;
  std::shared_ptr<Ops> ops_;
};

int Main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: engine_driver padding=CONFIGS | [dummy=]MODEL[:ASSISTANT] ...\n");
    return 2;
  }
  try {
    bool good = true;
    for (int i = 1; i < argc; ++i) {
      std::string_view model = argv[i];
      constexpr std::string_view kDummy = "dummy=", kPadding = "padding=";
      if (model.starts_with(kPadding)) {
        good &= PaddingChangesNothing(model.substr(kPadding.size()));
        continue;
      }
      const bool dummy = model.starts_with(kDummy);
      if (dummy) model.remove_prefix(kDummy.size());
      const size_t colon = model.find(':');
      const std::string_view drafter =
          colon == std::string_view::npos ? std::string_view() : model.substr(colon + 1);
      good &= Driver(model.substr(0, colon), drafter, dummy).Run();
    }
    return good ? 0 : 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "engine_driver: {}\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) { return lapidary::Main(argc, argv); }
