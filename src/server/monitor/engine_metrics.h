// The engine's counts and states as metrics.
#ifndef LAPIDARY_SERVER_MONITOR_ENGINE_METRICS_H_
#define LAPIDARY_SERVER_MONITOR_ENGINE_METRICS_H_

#include "engine/engine.h"
#include "server/monitor/metrics_text.h"

namespace lapidary {

// 0 of nothing.
inline double Share(int64_t part, int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

void WriteEngineMetrics(const EngineStats& stats, MetricsText& page);

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_MONITOR_ENGINE_METRICS_H_
