#include "app/flags.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <numeric>
#include <string_view>

#include "io/json.h"

namespace lapidary {
namespace {

enum class Action { kIgnore, kFixed, kUnbuilt };
constexpr int kMany = -1;  // values up to the next flag

struct Row {
  std::string_view spelling;
  std::string_view engine;
  Action action;
  int num_values = 0;                          // kIgnore
  std::vector<std::string_view> allowed = {};  // kFixed
};

constexpr const char* kV = "vLLM";
constexpr const char* kS = "SGLang";
constexpr const char* kBoth = "both";

const std::vector<Row>& Table() {
  using enum Action;
  static const std::vector<Row> rows = {
      // Without effect here.
      {"--trust-remote-code", kBoth, kIgnore},
      {"--api-server-count", kV, kIgnore, 1},
      {"--enable-metrics", kS, kIgnore},
      {"--enable-cache-report", kS, kIgnore},
      {"--skip-server-warmup", kS, kIgnore},
      {"--attention-backend", kBoth, kIgnore, 1},
      {"--prefill-attention-backend", kS, kIgnore, 1},
      {"--decode-attention-backend", kS, kIgnore, 1},
      {"--mm-attention-backend", kS, kIgnore, 1},
      {"--enable-auto-tool-choice", kV, kIgnore},
      // Memory and steps.
      {"--schedule-conservativeness", kS, kIgnore, 1},
      {"--enable-chunked-prefill", kV, kIgnore},
      {"--no-enable-chunked-prefill", kV, kUnbuilt},
      {"--long-prefill-token-threshold", kV, kIgnore, 1},
      {"--block-size", kV, kIgnore, 1},
      {"--page-size", kS, kIgnore, 1},
      {"--swa-full-tokens-ratio", kS, kIgnore, 1},
      {"--disable-hybrid-kv-cache-manager", kV, kUnbuilt},
      {"--disable-hybrid-swa-memory", kS, kUnbuilt},
      {"--enable-prefix-caching", kV, kIgnore},
      {"--disable-radix-cache", kS, kIgnore},
      // Graphs, overlap, all-reduce.
      {"--enforce-eager", kV, kIgnore},
      {"-O", kV, kIgnore, 1},
      {"-O0", kV, kIgnore},
      {"-O1", kV, kIgnore},
      {"-O2", kV, kIgnore},
      {"-O3", kV, kIgnore},
      {"--cudagraph-capture-sizes", kV, kIgnore, kMany},
      {"--max-cudagraph-capture-size", kV, kIgnore, 1},
      {"--disable-cuda-graph", kS, kIgnore},
      {"--cuda-graph-max-bs", kS, kIgnore, 1},
      {"--cuda-graph-bs", kS, kIgnore, kMany},
      {"--async-scheduling", kV, kIgnore},
      {"--disable-overlap-schedule", kS, kIgnore},
      {"--disable-custom-all-reduce", kBoth, kIgnore},
      {"--enable-flashinfer-allreduce-fusion", kS, kIgnore},
      // Parallel.
      {"--tensor-parallel-size", kV, kFixed, 1, {"1"}},
      {"-tp", kV, kFixed, 1, {"1"}},
      {"--tp-size", kS, kFixed, 1, {"1"}},
      {"--tp", kS, kFixed, 1, {"1"}},
      {"--pipeline-parallel-size", kV, kFixed, 1, {"1"}},
      {"-pp", kV, kFixed, 1, {"1"}},
      {"--pp-size", kS, kFixed, 1, {"1"}},
      {"--data-parallel-size", kV, kFixed, 1, {"1"}},
      {"-dp", kV, kFixed, 1, {"1"}},
      {"--dp-size", kS, kFixed, 1, {"1"}},
      {"--ep-size", kS, kFixed, 1, {"1"}},
      {"--nnodes", kBoth, kFixed, 1, {"1"}},
      {"--enable-expert-parallel", kV, kUnbuilt},
      // Numbers.
      {"--dtype", kBoth, kFixed, 1, {"bfloat16", "auto"}},
      {"--kv-cache-dtype", kBoth, kFixed, 1, {"auto"}},
      {"--quantization", kBoth, kUnbuilt},
      // Drafts.
      {"--speculative-config", kV, kIgnore, 1},
      {"--speculative-algorithm", kS, kIgnore, 1},
      {"--speculative-eagle-topk", kS, kFixed, 1, {"1"}},
      // Media.
      {"--limit-mm-per-prompt", kV, kUnbuilt},
      {"--language-model-only", kV, kIgnore},
      {"--mm-processor-kwargs", kV, kUnbuilt},
      {"--mm-processor-cache-gb", kV, kIgnore, 1},
      {"--mm-encoder-tp-mode", kV, kIgnore, 1},
      {"--enable-multimodal", kS, kUnbuilt},
      // Template, parsers, defaults, order.
      {"--chat-template", kBoth, kUnbuilt},
      {"--chat-template-content-format", kV, kIgnore, 1},
      // Model, keys, logs.
      {"--revision", kBoth, kUnbuilt},
      {"--tokenizer", kV, kUnbuilt},
      {"--tokenizer-path", kS, kUnbuilt},
      {"--disable-log-stats", kV, kIgnore},
      {"--log-level-http", kS, kIgnore, 1},
      {"--decode-log-interval", kS, kIgnore, 1},
      {"--enable-log-requests", kV, kUnbuilt},
      {"--log-requests", kS, kUnbuilt},
      {"--log-requests-level", kS, kUnbuilt},
      {"--log-requests-format", kS, kUnbuilt},
      {"--log-requests-target", kS, kUnbuilt},
      {"--uvicorn-access-log-exclude-prefixes", kS, kIgnore, kMany},
      {"--watchdog-timeout", kS, kIgnore, 1},
      // Of both and our own, to come.
      {"--config", kBoth, kUnbuilt},
      {"--ssl-keyfile", kBoth, kUnbuilt},
      {"--ssl-certfile", kBoth, kUnbuilt},
      {"--ssl-ca-certs", kBoth, kUnbuilt},
      {"--ssl-cert-reqs", kBoth, kUnbuilt},
      {"--uds", kV, kUnbuilt},
      {"--root-path", kV, kUnbuilt},
      {"--allowed-origins", kV, kUnbuilt},
      {"--allowed-methods", kV, kUnbuilt},
      {"--allowed-headers", kV, kUnbuilt},
      {"--allow-credentials", kV, kUnbuilt},
      {"--allowed-local-media-path", kV, kUnbuilt},
      {"--allowed-media-domains", kV, kUnbuilt},
      {"--enable-force-include-usage", kV, kUnbuilt},
      {"--max-logprobs", kV, kUnbuilt},
      {"--max-n", kBoth, kUnbuilt},
      {"--max-body-mib", kBoth, kUnbuilt},
      {"--max-audio-seconds", kBoth, kUnbuilt},
      {"--allowed-hosts", kBoth, kUnbuilt},
      {"--api-key-env", kBoth, kUnbuilt},
      {"--log-format", kBoth, kUnbuilt},
      {"--metrics-port", kBoth, kUnbuilt},
      {"--model-checksum", kBoth, kUnbuilt},
      {"--no-add-bos", kBoth, kUnbuilt},
      {"--prefix-cache-scope", kBoth, kUnbuilt},
      {"--sse-keepalive-interval", kBoth, kUnbuilt},
      {"--sse-keepalive-style", kBoth, kUnbuilt},
      {"--step-deadline", kBoth, kUnbuilt},
      {"--template-strict", kBoth, kUnbuilt},
  };
  return rows;
}

const Row* FindRow(std::string_view spelling) {
  for (const Row& row : Table())
    if (row.spelling == spelling) return &row;
  // --no-x of a switch that has no effect has none either.
  if (spelling.starts_with("--no-"))
    for (const Row& row : Table())
      if (row.action == Action::kIgnore && row.num_values == 0 &&
          row.spelling.substr(2) == spelling.substr(5))
        return &row;
  return nullptr;
}

// A letter after the dashes: "-1" and "- item" are values.
bool IsFlag(std::string_view text) {
  const size_t at = text.find_first_not_of('-');
  return (at == 1 || at == 2) && std::isalpha(static_cast<unsigned char>(text[at])) != 0;
}

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

Error Unknown(const std::string& flag, const std::set<std::string>& known_flags) {
  std::string nearest = NearestSpelling(flag, known_flags);
  std::string_view engine = kBoth;
  size_t best = nearest.empty() ? std::string::npos : EditDistance(flag, nearest);
  // More than a third of the letters changed is no slip of the hand any more.
  const size_t most = std::max<size_t>(2, flag.size() / 3);
  for (const Row& row : Table())
    if (const size_t distance = EditDistance(flag, row.spelling);
        distance < best && distance <= most)
      best = distance, nearest = row.spelling, engine = row.engine;
  if (best > most)
    return {fmt::format("unknown flag {}; the nearest is {}, --help shows all", flag, nearest), "",
            ""};
  const std::string of = engine == kBoth ? "" : fmt::format(" (of {})", engine);
  return {fmt::format("unknown flag {}; did you mean {}{}?", flag, nearest, of), "", ""};
}

// Reads one flag of the table with its values; `at` moves to the last argument it took. Flags
// without effect are noted in `ignored`.
Status TakeRow(const Row& row, const std::string& spelling, bool has_value, std::string value,
               const std::vector<std::string>& args, size_t& at,
               std::vector<std::string>& ignored) {
  if (row.action == Action::kUnbuilt)
    return Error{fmt::format("{} is not built yet", spelling), "", ""};
  if (row.num_values == 1 && !has_value) {
    if (at + 1 >= args.size() || IsFlag(args[at + 1]))
      return Error{fmt::format("{} needs a value", spelling), "", ""};
    value = args[++at];
  }
  if (row.num_values == kMany && !has_value)
    while (at + 1 < args.size() && !IsFlag(args[at + 1]) && args[at + 1] != "--") ++at;
  if (row.action == Action::kIgnore) {
    ignored.push_back(value.empty() ? spelling : spelling + " " + value);
    return Ok{};
  }
  if (std::find(row.allowed.begin(), row.allowed.end(), value) != row.allowed.end()) return Ok{};
  return Error{fmt::format("{} {} is not built yet; {} {}", spelling, value,
                           fmt::join(row.allowed, ", "), row.allowed.size() == 1 ? "is" : "are"),
               "", ""};
}

// {"key": value} of a flag's part; what is no JSON is a string.
std::string PartJson(const std::string& key, const std::string& value) {
  const Result<json::value> parsed = ParseJson(value, key);
  return json::serialize(
      json::object{{key, parsed.ok() ? parsed.value() : json::value(json::string(value))}});
}

}  // namespace

std::string NearestSpelling(const std::string& given, const std::set<std::string>& known) {
  std::string nearest;
  size_t best = std::string::npos;
  for (const std::string& one : known)
    if (const size_t distance = EditDistance(given, one); distance < best)
      best = distance, nearest = one;
  return nearest;
}

Result<std::vector<std::string>> PrepareArguments(int argc, char** argv,
                                                  const std::set<std::string>& known_flags) {
  const std::vector<std::string> args(argv, argv + argc);
  std::vector<std::string> kept, ignored;
  for (size_t at = 0; at < args.size(); ++at) {
    if (args[at] == "--") {
      kept.insert(kept.end(), args.begin() + static_cast<std::ptrdiff_t>(at), args.end());
      break;
    }
    if (at < 2 || !IsFlag(args[at])) {
      kept.push_back(args[at]);
      continue;
    }
    const size_t equals = args[at].find('=');
    const bool has_value = equals != std::string::npos;
    const std::string spelling = args[at].substr(0, equals);
    if (known_flags.contains(spelling)) {
      kept.push_back(args[at]);
      continue;
    }
    // --speculative-config.num_speculative_tokens is a part of --speculative-config.
    const size_t dot = spelling.find('.');
    const Row* row = FindRow(spelling.substr(0, dot));
    const bool is_part = dot != std::string::npos && known_flags.contains(spelling.substr(0, dot));
    if (row == nullptr && !is_part) return Unknown(spelling, known_flags);
    std::string value = has_value ? args[at].substr(equals + 1) : "";
    if (is_part) {
      if (!has_value && at + 1 >= args.size())
        return Error{fmt::format("{} needs a value", spelling), "", ""};
      if (!has_value) value = args[++at];
      kept.push_back(spelling.substr(0, dot));
      kept.push_back(PartJson(spelling.substr(dot + 1), value));
      continue;
    }
    if (Status taken = TakeRow(*row, spelling, has_value, value, args, at, ignored); !taken.ok())
      return taken.error();
  }
  if (!ignored.empty()) fmt::print(stderr, "ignored: {}\n", fmt::join(ignored, ", "));
  return kept;
}

}  // namespace lapidary
