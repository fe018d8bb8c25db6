#include "base/trace.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <utility>

namespace lapidary {
namespace {

struct State {
  std::mutex mutex;
  std::vector<TraceEvent> events;  // guarded by mutex, as all below
  size_t num_dropped = 0;
  std::vector<TraceSource*> sources;
};

State& TheState() {
  static State state;
  return state;
}

std::atomic<bool> on{false};
std::atomic<void (*)(const char*)> push_range{nullptr};
std::atomic<void (*)()> pop_range{nullptr};
thread_local const char* thread_name = "thread";

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out;
}

}  // namespace

int64_t TraceNowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

bool Trace::is_on() { return on.load(std::memory_order_relaxed); }

bool Trace::Start() {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  if (on) return false;
  state.events.clear();
  state.num_dropped = 0;
  for (TraceSource* source : state.sources) source->Start();
  on = true;
  return true;
}

std::vector<TraceEvent> Trace::Stop(size_t* num_dropped) {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  if (!on) return {};
  on = false;
  for (TraceSource* source : state.sources) {
    std::vector<TraceEvent> more = source->Stop();
    const size_t room = std::min(more.size(), kMaxEvents - state.events.size());
    state.num_dropped += more.size() - room;
    std::move(more.begin(), more.begin() + static_cast<std::ptrdiff_t>(room),
              std::back_inserter(state.events));
  }
  if (num_dropped != nullptr) *num_dropped = state.num_dropped;
  std::stable_sort(
      state.events.begin(), state.events.end(),
      [](const TraceEvent& a, const TraceEvent& b) { return a.start_ns < b.start_ns; });
  return std::move(state.events);
}

void Trace::Add(const char* name, int64_t start_ns, int64_t end_ns) {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  if (!on) return;
  if (state.events.size() >= kMaxEvents)
    ++state.num_dropped;
  else
    state.events.push_back({name, thread_name, start_ns, end_ns});
}

void Trace::AddSource(TraceSource* source) {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  state.sources.push_back(source);
  if (on) source->Start();
}

void Trace::RemoveSource(TraceSource* source) {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  std::erase(state.sources, source);
}

void Trace::SetRanges(void (*push)(const char*), void (*pop)()) {
  push_range = push;
  pop_range = pop;
}

void Trace::NameThread(const char* name) { thread_name = name; }

TraceSpan::TraceSpan(const char* name) : name_(name), start_ns_(Trace::is_on() ? TraceNowNs() : 0) {
  if (const auto push = push_range.load(std::memory_order_relaxed)) push(name);
}

TraceSpan::~TraceSpan() {
  if (const auto pop = pop_range.load(std::memory_order_relaxed)) pop();
  if (start_ns_ != 0 && Trace::is_on()) Trace::Add(name_, start_ns_, TraceNowNs());
}

std::string ChromeTrace(std::span<const TraceEvent> events) {
  std::map<std::string, int> tracks;
  std::string out = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[";
  const int64_t origin = events.empty() ? 0 : events.front().start_ns;
  const char* separator = "";
  for (const TraceEvent& event : events) {
    const int track =
        tracks.emplace(event.track, static_cast<int>(tracks.size()) + 1).first->second;
    out += fmt::format(
        "{}\n{{\"ph\":\"X\",\"pid\":1,\"tid\":{},\"name\":\"{}\",\"ts\":{:.3f},"
        "\"dur\":{:.3f}}}",
        separator, track, Escaped(event.name), static_cast<double>(event.start_ns - origin) * 1e-3,
        static_cast<double>(event.end_ns - event.start_ns) * 1e-3);
    separator = ",";
  }
  for (const auto& [name, track] : tracks) {
    out += fmt::format(
        "{}\n{{\"ph\":\"M\",\"pid\":1,\"tid\":{},\"name\":\"thread_name\","
        "\"args\":{{\"name\":\"{}\"}}}}",
        separator, track, Escaped(name));
    separator = ",";
  }
  out += "\n]}\n";
  return out;
}

}  // namespace lapidary
