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
#include "engine/engine.h"
#include "server/admin.h"

namespace lapidary {

class Profiler {
 public:
  // Files are written below `dir` only; empty: a folder of the system's temporary one.
  explicit Profiler(std::filesystem::path dir);

  // fields: the body of /start_profile. stats: of the engine whose steps are counted. Returns the
  // answer, with `file`: a trace of a number of steps writes it by itself, others at Stop.
  Result<boost::json::object> Start(const boost::json::object& fields,
                                    std::function<EngineStats()> stats);
  // Writes the file of the running trace.
  Result<boost::json::object> Stop();

 private:
  // Writes to `file` a trace of the next `count` steps whole, unless it is stopped: those after the
  // first `first`, where the trace has begun; else it begins once so many have.
  void TraceSteps(const std::filesystem::path& file, bool begun, int64_t first, int64_t count,
                  const std::function<EngineStats()>& stats);
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
