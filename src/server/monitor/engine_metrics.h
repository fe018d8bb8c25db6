// The engine's counts and states as metrics.
#ifndef LAPIDARY_SERVER_MONITOR_ENGINE_METRICS_H_
#define LAPIDARY_SERVER_MONITOR_ENGINE_METRICS_H_

#include "engine/engine.h"
#include "server/monitor/metrics_text.h"

namespace lapidary {

void WriteEngineMetrics(const EngineStats& stats, MetricsText& page);

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_MONITOR_ENGINE_METRICS_H_
