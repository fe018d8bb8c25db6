#include "server/monitor/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace lapidary {
namespace {

// Seconds since the epoch when the first page was asked for are no start; this is set at load.
const double kStartSeconds =
    std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();

}  // namespace

void WriteProcessMetrics(MetricsText& page) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  page.Counter("process_cpu_seconds_total", "User and system time.",
               seconds(usage.ru_utime) + seconds(usage.ru_stime));
  // In pages: size, resident.
  double size = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> size >> resident;
  const auto page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
  page.Gauge("process_virtual_memory_bytes", "Virtual memory.", size * page_bytes);
  page.Gauge("process_resident_memory_bytes", "Resident memory.", resident * page_bytes);
  page.Gauge("process_start_time_seconds", "Start of the process, since the epoch.", kStartSeconds);
  std::error_code code;
  double files = 0, threads = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", code))
    files += entry.path().empty() ? 0 : 1;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task", code))
    threads += entry.path().empty() ? 0 : 1;
  page.Gauge("process_open_fds", "Open file descriptors.", files);
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  page.Gauge("process_max_fds", "File descriptors that may be open.",
             static_cast<double>(limit.rlim_cur));
  page.Gauge("process_threads", "Threads.", threads);
}

}  // namespace lapidary
