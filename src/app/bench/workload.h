// Workload: the requests of a bench run, from random ids of given lengths or from a file of
// prompts.
#ifndef LAPIDARY_APP_BENCH_WORKLOAD_H_
#define LAPIDARY_APP_BENCH_WORKLOAD_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "app/model/prompt_line.h"
#include "engine/request.h"
#include "io/json.h"

namespace CLI {
class App;
}

namespace lapidary {

// Both ends count; equal: fixed.
struct LengthRange {
  int least = 0, most = 0;
};

struct WorkloadFlags {
  LengthRange input, output;
  int num_requests = 0;
  std::string prompts_file;
  uint64_t seed = 1;  // of lengths, ids and draws
  std::optional<float> temperature, top_p;
  std::optional<int> top_k;
  std::optional<bool> ignore_eos;  // on for random ids, off for prompts of a file
  bool ignores_eos() const { return ignore_eos.value_or(prompts_file.empty()); }
};
// The struct's lengths and number of requests are the defaults.
void AddWorkloadFlags(CLI::App& app, WorkloadFlags& flags);

struct BenchRequest {
  std::vector<int32_t> prompt;
  int max_tokens = 0;
  SamplingParams sampling;
};

// Random ids of the middle three quarters of the vocabulary, where no control token is. The same
// flags give the same requests. Throws StartupError.
std::vector<BenchRequest> MakeWorkload(const WorkloadFlags& flags, int vocab_size);

// An eighth of the requests with an eighth of their tokens: what is run first and not counted,
// where nothing is made at first use.
std::vector<BenchRequest> ShortWorkload(const std::vector<BenchRequest>& requests);

// Evenly spread over the file where it has more lines than requests are wanted; each with the
// output's longest length. Throws StartupError.
std::vector<BenchRequest> ReadWorkload(const WorkloadFlags& flags, const PromptReader& reader);

json::object TellWorkload(const WorkloadFlags& flags, const std::vector<BenchRequest>& requests);
std::string WorkloadLine(const WorkloadFlags& flags, const std::vector<BenchRequest>& requests);

}  // namespace lapidary

#endif  // LAPIDARY_APP_BENCH_WORKLOAD_H_
