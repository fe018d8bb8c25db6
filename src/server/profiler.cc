#include "server/profiler.h"

#include <fmt/core.h>

#include <charconv>
#include <chrono>
#include <fstream>
#include <optional>
#include <utility>

#include "base/log.h"
#include "base/trace.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr int64_t kMaxSteps = 100000;
constexpr std::chrono::minutes kMaxWait{10};
constexpr size_t kMaxName = 100;

Error BadField(const char* name, const char* rule) {
  return Error{fmt::format("'{}' must be {}.", name, rule), name, "invalid_value"};
}

// A number of steps, also as a string; none where the field is absent or null.
Result<std::optional<int64_t>> StepsOf(const json::object& fields, const char* name) {
  const json::value* value = fields.if_contains(name);
  if (value == nullptr || value->is_null()) return std::optional<int64_t>();
  int64_t steps = -1;
  if (value->is_int64()) {
    steps = value->get_int64();
  } else if (value->is_string()) {
    const json::string& text = value->get_string();
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), steps);
    if (code != std::errc() || end != text.data() + text.size()) steps = -1;
  }
  if (steps < 0 || steps > kMaxSteps) return BadField(name, "a number from 0 to 100000");
  return std::optional<int64_t>(steps);
}

// A name without a path: what is no letter, digit, '.', '_' or '-' is left out.
Result<std::string> NameOf(const json::object& fields, const char* name) {
  const json::value* value = fields.if_contains(name);
  if (value == nullptr || value->is_null()) return std::string();
  if (!value->is_string()) return BadField(name, "a string");
  const std::string text(fs::path(std::string(value->get_string())).filename());
  std::string result;
  for (const char c : text)
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
        c == '-' || (c == '.' && !result.empty()))
      result += c;
  return result.substr(0, kMaxName);
}

Status CheckFields(const json::object& fields) {
  if (const json::value* by_stage = fields.if_contains("profile_by_stage"))
    if (!by_stage->is_null() && by_stage->if_bool() != nullptr && by_stage->get_bool())
      return Error{"'profile_by_stage' is not built: a trace shows prefill and decode steps alike.",
                   "profile_by_stage", "unsupported_value"};
  if (const json::value* kinds = fields.if_contains("activities")) {
    if (kinds->is_null()) return Ok{};
    if (!kinds->is_array()) return BadField("activities", "a list of CPU and GPU");
    for (const json::value& kind : kinds->get_array())
      if (!kind.is_string() || (kind.get_string() != "CPU" && kind.get_string() != "GPU"))
        return BadField("activities", "a list of CPU and GPU");
  }
  return Ok{};
}

}  // namespace

Profiler::Profiler(fs::path dir)
    : dir_(dir.empty() ? fs::temp_directory_path() / "lapidary-profiles" : std::move(dir)) {}

Result<json::object> Profiler::Start(const json::object& fields,
                                     std::function<EngineStats()> stats) {
  if (Status status = CheckFields(fields); !status.ok()) return status.error();
  const auto count = StepsOf(fields, "num_steps"), first = StepsOf(fields, "start_step");
  const auto folder = NameOf(fields, "output_dir"), prefix = NameOf(fields, "profile_prefix");
  for (const auto* steps : {&count, &first})
    if (!steps->ok()) return steps->error();
  for (const auto* name : {&folder, &prefix})
    if (!name->ok()) return name->error();

  const std::lock_guard lock(mutex_);
  if (!file_.empty())
    return Error{"A trace runs already; /stop_profile ends it.", "", "already_profiling"};
  const fs::path place = folder.value().empty() ? dir_ : dir_ / folder.value();
  std::error_code code;
  fs::create_directories(place, code);
  if (code)
    return Error{fmt::format("Cannot make {}: {}.", place.string(), code.message()), "", ""};
  const std::string name = fmt::format(
      "{}-{}-{}.trace.json", prefix.value().empty() ? "lapidary" : prefix.value(),
      std::chrono::system_clock::to_time_t(std::chrono::system_clock::now()), ++num_files_);
  const int64_t wanted = count.value().value_or(0), begin = first.value().value_or(0);
  if (wanted == 0 && begin > 0) return BadField("num_steps", "given with start_step");
  // Where no step is waited for, whatever is sent after the answer is in the trace.
  const bool at_once = begin == 0;
  if (at_once && !Trace::Start()) return Error{"A trace runs already.", "", "already_profiling"};
  const int64_t from = wanted > 0 && at_once ? stats().num_begun : begin;
  if (wanted > 0 &&
      !worker_.Post([this, file = place / name, at_once, from, wanted, stats = std::move(stats)] {
        TraceSteps(file, at_once, from, wanted, stats);
      })) {
    if (at_once) Trace::Stop();
    return Error{"The server stops.", "", ""};
  }
  file_ = place / name;
  return json::object{{"success", true}, {"file", file_.string()}};
}

// /stop_profile may end it at any moment, and another trace begin.
void Profiler::TraceSteps(const fs::path& file, bool begun, int64_t first, int64_t count,
                          const std::function<EngineStats()>& stats) {
  const auto wait_for = [&](int64_t EngineStats::* counter, int64_t step) {
    return worker_.WaitUntil([&, step] { return stats().*counter >= step || !Runs(file); },
                             kMaxWait);
  };
  if (!begun) {
    begun = wait_for(&EngineStats::num_begun, first);
    const std::lock_guard lock(mutex_);
    if (file_ != file) return;
    if (begun) Trace::Start();
    first = stats().num_begun;
  }
  // Steps are read in the order in which they begin.
  if (begun) wait_for(&EngineStats::num_steps, first + count);
  const std::lock_guard lock(mutex_);
  if (file_ != file) return;
  if (const Result<json::object> written = Write(); !written.ok())
    LogWarning("profile: {}", written.error().message);
}

bool Profiler::Runs(const fs::path& file) {
  const std::lock_guard lock(mutex_);
  return file_ == file;
}

Result<json::object> Profiler::Stop() {
  const std::lock_guard lock(mutex_);
  if (file_.empty()) return Error{"No trace runs.", "", "not_profiling"};
  return Write();
}

Result<json::object> Profiler::Write() {
  const fs::path file = std::exchange(file_, {});
  size_t num_dropped = 0;
  const std::vector<TraceEvent> events = Trace::Stop(&num_dropped);
  // Whoever waits for the file finds it whole.
  const fs::path part = file.string() + ".part";
  std::ofstream out(part, std::ios::binary);
  out << ChromeTrace(events);
  out.close();
  std::error_code code;
  if (out) fs::rename(part, file, code);
  if (!out || code) return Error{fmt::format("Cannot write {}.", file.string()), "", ""};
  LogInfo("profile: {} spans in {}, {} more were too many", events.size(), file.string(),
          num_dropped);
  return json::object{{"success", true},
                      {"file", file.string()},
                      {"num_spans", events.size()},
                      {"num_dropped", num_dropped}};
}

}  // namespace lapidary
