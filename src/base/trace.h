// Trace: spans of what threads and devices do between Start and Stop, for a Chrome trace. While it
// is off a span costs a load and, if a tool listens, a range (NVTX).
#ifndef LAPIDARY_BASE_TRACE_H_
#define LAPIDARY_BASE_TRACE_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lapidary {

struct TraceEvent {
  std::string name;
  std::string track;  // a thread, or a device's queue
  int64_t start_ns = 0, end_ns = 0;
};

// The clock of all spans: steady, nanoseconds.
int64_t TraceNowNs();

// What can tell more than the spans of this program's threads: a device.
class TraceSource {
 public:
  virtual ~TraceSource() = default;
  virtual void Start() = 0;
  virtual std::vector<TraceEvent> Stop() = 0;
};

// One for the process; thread-safe.
class Trace {
 public:
  static constexpr size_t kMaxEvents = size_t{1} << 20;  // what is beyond is counted only

  static bool is_on();
  static bool Start();  // false: it is on already
  // All spans that ended since Start, in the order of their starts; num_dropped beyond kMaxEvents.
  static std::vector<TraceEvent> Stop(size_t* num_dropped = nullptr);
  static void Add(const char* name, int64_t start_ns, int64_t end_ns);

  static void AddSource(TraceSource* source);
  static void RemoveSource(TraceSource* source);
  // Told of each span of a thread, on or off; both or none.
  static void SetRanges(void (*push)(const char*), void (*pop)());
  // The track of this thread's spans from now on; a literal.
  static void NameThread(const char* name);
};

// From here to the end of the block. name: a literal.
class TraceSpan {
 public:
  explicit TraceSpan(const char* name);
  ~TraceSpan();
  TraceSpan(const TraceSpan&) = delete;
  TraceSpan& operator=(const TraceSpan&) = delete;

 private:
  const char* name_;
  int64_t start_ns_;  // 0: the trace was off
};

// The JSON of Chrome's and Perfetto's viewers; a thread for each track.
std::string ChromeTrace(std::span<const TraceEvent> events);

}  // namespace lapidary

#endif  // LAPIDARY_BASE_TRACE_H_
