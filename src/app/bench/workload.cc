#include "app/bench/workload.h"

#include <fmt/core.h>
#include <CLI/App.hpp>

#include <algorithm>
#include <random>
#include <utility>

namespace lapidary {
namespace {

constexpr int kMaxTokens = 1 << 24;
constexpr int kMaxRequests = 1 << 20;

// "1000" or "500-1500".
std::string ParseRange(const std::string& text, int least, LengthRange& range) {
  const size_t dash = text.find('-', 1);
  const std::string low = text.substr(0, dash);
  const std::string high = dash == std::string::npos ? low : text.substr(dash + 1);
  using CLI::detail::lexical_cast;
  if (!lexical_cast(low, range.least) || !lexical_cast(high, range.most) || range.least < least ||
      range.most < range.least || range.most > kMaxTokens)
    return fmt::format("'{}' is no length of {} to {} tokens, such as 1000 or 500-1500", text,
                       least, kMaxTokens);
  return "";
}

void AddLength(CLI::App& app, const std::string& names, LengthRange& range, const char* text) {
  const std::string now = range.least == range.most ? std::to_string(range.least)
                                                    : fmt::format("{}-{}", range.least, range.most);
  app.add_option_function<std::string>(
         names,
         [&range, names](const std::string& given) {
           if (const std::string wrong = ParseRange(given, 1, range); !wrong.empty())
             throw CLI::ValidationError(names, wrong);
         },
         text)
      ->type_name("N")
      ->default_str(now);
}

// The distributions of the standard library differ between its makers.
class Random {
 public:
  explicit Random(uint64_t seed) : bits_(seed) {}
  int Between(int least, int most) {
    return least + static_cast<int>(bits_() % (static_cast<uint64_t>(most - least) + 1));
  }

 private:
  std::mt19937_64 bits_;
};

SamplingParams Sampling(const WorkloadFlags& flags, size_t index) {
  SamplingParams sampling;
  sampling.temperature = flags.temperature.value_or(1.0f);
  sampling.top_k = flags.top_k.value_or(0);
  sampling.top_p = flags.top_p.value_or(1.0f);
  sampling.seed = flags.seed + index;
  sampling.ignore_eos = flags.ignores_eos();
  return sampling;
}

}  // namespace

void AddWorkloadFlags(CLI::App& app, WorkloadFlags& flags) {
  AddLength(app, "--input-len,--random-input-len,--random-input", flags.input,
            "tokens a prompt, 1000 or 500-1500");
  AddLength(app, "--output-len,--random-output-len,--random-output", flags.output,
            "tokens an answer, likewise; the most with --prompts");
  app.add_option("--num-prompts,--num-requests", flags.num_requests, "requests a run")
      ->check(CLI::Range(1, kMaxRequests))
      ->capture_default_str();
  app.add_option("--prompts,--dataset-path", flags.prompts_file,
                 "a JSON line each: messages, prompt or prompt_token_ids");
  app.add_option("--seed,--random-seed", flags.seed, "of lengths, ids and draws")
      ->capture_default_str();
  app.add_option("--temperature", flags.temperature, "0 is greedy (1)")
      ->check(CLI::Range(0.0f, 100.0f));
  app.add_option("--top-k", flags.top_k, "0: off (off)")->check(CLI::Range(-1, 1 << 24));
  app.add_option("--top-p", flags.top_p, "1: off (off)")->check(CLI::Range(0.0f, 1.0f));
  app.add_flag_callback(
      "--ignore-eos", [&flags] { flags.ignore_eos = true; },
      "go on after an end token (on without --prompts)");
  app.add_flag_callback(
      "--no-ignore-eos,--disable-ignore-eos", [&flags] { flags.ignore_eos = false; },
      "end at an end token");
  // 0 is fixed for one client, 1 for the other.
  app.add_option_function<std::string>(
         "--random-range-ratio",
         [](const std::string&) {
           throw CLI::ValidationError(
               "--random-range-ratio",
               "vLLM and SGLang mean opposite things by it; give a range: --input-len 500-1500");
         })
      ->group("");
}

std::vector<BenchRequest> MakeWorkload(const WorkloadFlags& flags, int vocab_size) {
  Random random(flags.seed);
  std::vector<BenchRequest> requests(static_cast<size_t>(flags.num_requests));
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt.resize(
        static_cast<size_t>(random.Between(flags.input.least, flags.input.most)));
    for (int32_t& id : requests[i].prompt)
      id = random.Between(vocab_size / 8, vocab_size - vocab_size / 8 - 1);
    requests[i].max_tokens = random.Between(flags.output.least, flags.output.most);
    requests[i].sampling = Sampling(flags, i);
  }
  return requests;
}

std::vector<BenchRequest> ReadWorkload(const WorkloadFlags& flags, const PromptReader& reader) {
  std::vector<PromptLine> lines;
  ForEachJsonLine(flags.prompts_file, [&](json::object& object, int) -> Status {
    Result<PromptLine> line = reader.Read(object);
    if (!line.ok()) return line.error();
    lines.push_back(std::move(line).value());
    return Ok{};
  });
  if (lines.empty()) throw StartupError(fmt::format("{} holds no prompts", flags.prompts_file));
  std::vector<BenchRequest> requests(
      std::min(lines.size(), static_cast<size_t>(flags.num_requests)));
  for (size_t i = 0; i < requests.size(); ++i)
    requests[i] = {std::move(lines[i * lines.size() / requests.size()].ids), flags.output.most,
                   Sampling(flags, i)};
  return requests;
}

json::object TellWorkload(const WorkloadFlags& flags, const std::vector<BenchRequest>& requests) {
  const SamplingParams& sampling = requests.front().sampling;
  json::object told = {{"num_requests", requests.size()},
                       {"output_len", {flags.output.least, flags.output.most}},
                       {"seed", flags.seed},
                       {"temperature", sampling.temperature},
                       {"top_k", sampling.top_k},
                       {"top_p", sampling.top_p},
                       {"ignore_eos", sampling.ignore_eos}};
  if (flags.prompts_file.empty())
    told["input_len"] = {flags.input.least, flags.input.most};
  else
    told["prompts"] = flags.prompts_file;
  return told;
}

std::string WorkloadLine(const WorkloadFlags& flags, const std::vector<BenchRequest>& requests) {
  const auto length = [](const LengthRange& range) {
    return range.least == range.most ? std::to_string(range.least)
                                     : fmt::format("{}-{}", range.least, range.most);
  };
  const SamplingParams& sampling = requests.front().sampling;
  return fmt::format(
      "{} requests, {}, {} tokens out   temperature {}, seed {}{}", requests.size(),
      flags.prompts_file.empty() ? length(flags.input) + " random ids in" : flags.prompts_file,
      flags.prompts_file.empty() ? length(flags.output)
                                 : "at most " + std::to_string(flags.output.most),
      sampling.temperature, flags.seed, sampling.ignore_eos ? "" : ", until an end token");
}

std::vector<BenchRequest> ShortWorkload(const std::vector<BenchRequest>& requests) {
  std::vector<BenchRequest> few(
      requests.begin(), requests.begin() + static_cast<std::ptrdiff_t>((requests.size() + 7) / 8));
  for (BenchRequest& request : few) request.max_tokens = (request.max_tokens + 7) / 8;
  return few;
}

}  // namespace lapidary
