// lapidary bench serve: load on a running server, ours or another OpenAI-compatible one.
#include <fmt/core.h>
#include <CLI/App.hpp>
#include <boost/json/value_from.hpp>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <sstream>

#include "app/bench/bench_command.h"
#include "app/bench/http_load.h"
#include "app/bench/record.h"
#include "app/model/load_model.h"

namespace lapidary {
namespace {

struct ServeLoadFlags {
  WorkloadFlags workload;
  LoadTarget target;
  LoadShape shape;
  std::string base_url, host = "127.0.0.1";
  int port = 8000;
  int vocab_size = 262'144;
  int repeats = 3;
  std::string json_path;
  std::string backend, dataset, endpoint;  // said by vLLM's users; there is one way
};

std::string FirstModel(const LoadTarget& target) {
  const json::value models =
      OrThrow(ParseJson(OrThrow(HttpGet(target, "/v1/models")), "/v1/models"));
  boost::system::error_code code;
  const json::value* id = models.find_pointer("/data/0/id", code);
  if (id == nullptr || !id->is_string())
    throw StartupError("the server lists no model; name one with --model");
  return std::string(id->get_string());
}

// What the server has counted of its drafts, as vLLM names it; zeros where it does not say.
struct DraftCounts {
  double bursts = 0, accepted = 0;
};
DraftCounts ReadDrafts(const LoadTarget& target) {
  DraftCounts counts;
  const Result<std::string> page = HttpGet(target, "/metrics");
  std::istringstream lines(page.ok() ? page.value() : "");
  for (std::string line; std::getline(lines, line);) {
    double* const count = line.starts_with("vllm:spec_decode_num_drafts_total") ? &counts.bursts
                          : line.starts_with("vllm:spec_decode_num_accepted_tokens_total")
                              ? &counts.accepted
                              : nullptr;
    if (count != nullptr) *count += std::strtod(line.c_str() + line.rfind(' '), nullptr);
  }
  return counts;
}

json::object TellRun(const LoadRun& run) {
  json::array requests;
  for (const RequestTrace& trace : run.traces)
    requests.push_back(json::object{{"prompt_tokens", trace.num_prompt},
                                    {"output_tokens", trace.num_output},
                                    {"sent_s", trace.sent_s},
                                    {"arrivals_s", json::value_from(trace.arrivals_s)}});
  return {{"duration_s", run.duration_s}, {"requests", std::move(requests)}};
}

std::string ShapeLine(const LoadShape& shape) {
  std::string line = std::isfinite(shape.requests_per_s)
                         ? fmt::format("{} requests/s", shape.requests_per_s)
                         : std::string("all at once");
  if (shape.max_concurrency > 0) line += fmt::format(", at most {} open", shape.max_concurrency);
  return line;
}

std::vector<BenchRequest> MakeRequests(const ServeLoadFlags& flags) {
  if (flags.workload.prompts_file.empty()) return MakeWorkload(flags.workload, flags.vocab_size);
  return ReadWorkload(flags.workload,
                      PromptReader(TemplateRevision::kEdge, nullptr, flags.vocab_size));
}

int RunServeLoad(ServeLoadFlags flags) {
  json::object record = NewRecord("serve");
  if (!flags.json_path.empty()) WriteRecord(flags.json_path, {});
  flags.target.url = ParseUrl(
      "--base-url", flags.base_url.empty() ? fmt::format("http://{}:{}", flags.host, flags.port)
                                           : flags.base_url);
  flags.shape.seed = flags.workload.seed;
  if (flags.target.model.empty()) flags.target.model = FirstModel(flags.target);
  const std::vector<BenchRequest> requests = MakeRequests(flags);
  fmt::print("client    {}\nserver    http://{}, model {}\nworkload  {}, {}\n", MachineLine(),
             flags.target.url.authority(), flags.target.model,
             WorkloadLine(flags.workload, requests), ShapeLine(flags.shape));
  std::vector<std::vector<Figure>> figures;
  json::array runs;
  for (int i = 0; i <= flags.repeats; ++i) {
    const DraftCounts before = ReadDrafts(flags.target);
    const std::vector<BenchRequest> these = i == 0 ? ShortWorkload(requests) : requests;
    ProgressLine progress(
        i == 0 ? "short run, not counted" : fmt::format("run {}/{}", i, flags.repeats),
        these.size(), "messages");
    const LoadRun run = RunLoad(flags.target, flags.shape, these, progress);
    std::vector<std::string> errors;
    for (const RequestTrace& trace : run.traces)
      if (!trace.ok()) errors.push_back(trace.error);
    NeedNoFailures(errors, these.size());
    if (i == 0) continue;
    const DraftCounts after = ReadDrafts(flags.target);
    figures.push_back(FiguresOf(Measure(run.traces, run.duration_s)));
    if (after.bursts > before.bursts)
      figures.back().push_back(
          {"accept_length", "accept length",
           1 + (after.accepted - before.accepted) / (after.bursts - before.bursts)});
    runs.push_back(TellRun(run));
  }
  const std::vector<Spread> spreads = SpreadsOf(figures);
  PrintSpreads(spreads);
  record["server"] = {{"url", "http://" + flags.target.url.authority() + flags.target.url.path},
                      {"model", flags.target.model}};
  record["workload"] = TellWorkload(flags.workload, requests);
  record["request_rate"] = std::isfinite(flags.shape.requests_per_s)
                               ? json::value(flags.shape.requests_per_s)
                               : json::value("inf");
  record["max_concurrency"] = flags.shape.max_concurrency;
  record["repeats"] = flags.repeats;
  record["failed"] = 0;
  record["figures"] = TellSpreads(spreads);
  record["runs"] = std::move(runs);
  if (!flags.json_path.empty()) WriteRecord(flags.json_path, record);
  return 0;
}

std::function<int()> SetUpServeLoad(CLI::App& app) {
  auto f = std::make_shared<ServeLoadFlags>();
  f->workload.input = f->workload.output = {1000, 1000};
  f->workload.num_requests = 80;
  app.add_option("--base-url", f->base_url, "the server (default: http://HOST:PORT)");
  app.add_option("--host", f->host)->capture_default_str();
  app.add_option("--port", f->port)->check(CLI::Range(1, 65535))->capture_default_str();
  app.add_option("--model,-m", f->target.model, "its name (default: the first of /v1/models)");
  app.add_option("--api-key", f->target.api_key, "of the server");
  app.add_option("--backend", f->backend, "the server's maker; all speak /v1/completions")
      ->check(CLI::IsMember({"openai", "vllm", "sglang-oai", "lapidary"}));
  app.add_option("--dataset-name", f->dataset, "random ids, or the file of --prompts")
      ->check(CLI::IsMember({"random", "random-ids", "custom"}));
  app.add_option("--endpoint", f->endpoint, "there is one")
      ->check(CLI::IsMember({"/v1/completions"}));
  app.add_option("--vocab-size", f->vocab_size, "of the model: bounds random ids")
      ->check(CLI::Range(16, 1 << 24))
      ->capture_default_str();
  app.add_option("--request-rate", f->shape.requests_per_s,
                 "requests a second, at random moments (inf: all at once)")
      ->check(CLI::Range(1e-6, std::numeric_limits<double>::infinity()));
  app.add_option("--max-concurrency", f->shape.max_concurrency,
                 "requests open at a time (0: any number)")
      ->check(CLI::Range(0, 1 << 20));
  app.add_option("--timeout", f->target.timeout_s, "seconds without a byte: the request failed")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  AddWorkloadFlags(app, f->workload);
  AddRunFlags(app, f->repeats, f->json_path);
  return [f] { return RunServeLoad(*f); };
}

}  // namespace

const Command kBenchServeCommand = {
    "serve", "load on a running server, over HTTP",
    "lapidary bench serve --port 8000 --input-len 100 --output-len 100 --request-rate 4",
    SetUpServeLoad};

}  // namespace lapidary
