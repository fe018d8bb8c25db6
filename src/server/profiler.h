// Profiler: the traces that /start_profile asks for, as files. One at a time.
#ifndef LAPIDARY_SERVER_PROFILER_H_
#define LAPIDARY_SERVER_PROFILER_H_

#include <boost/json/value.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <string>

#include "base/result.h"
#include "server/admin.h"

namespace lapidary {

class Profiler {
 public:
  // Files are written below `dir` only; empty: a folder of the system's temporary one.
  explicit Profiler(std::filesystem::path dir);

  // fields: the body of /start_profile. num_steps: those that the engine has begun. Returns the
  // answer, with `file`: a trace of a number of steps writes it by itself, others at Stop.
  Result<boost::json::object> Start(const boost::json::object& fields,
                                    std::function<int64_t()> num_steps);
  // Writes the file of the running trace.
  Result<boost::json::object> Stop();

 private:
  // Traces at least `count` steps from step `first` on, for which it waits unless the trace has
  // begun, and writes them to `file`, unless it is stopped.
  void TraceSteps(const std::filesystem::path& file, int64_t first, bool begun, int64_t count,
                  const std::function<int64_t()>& num_steps);
  bool Runs(const std::filesystem::path& file);
  Result<boost::json::object> Write();  // the trace of file_; mutex_ is held

  const std::filesystem::path dir_;
  std::mutex mutex_;
  std::filesystem::path file_;  // guarded by mutex_; empty: no trace runs or waits
  int num_files_ = 0;
  Admin worker_;  // goes first
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_PROFILER_H_
