// process_*: this process as Prometheus' client libraries tell it.
#ifndef LAPIDARY_SERVER_MONITOR_PROCESS_METRICS_H_
#define LAPIDARY_SERVER_MONITOR_PROCESS_METRICS_H_

#include "server/monitor/metrics_text.h"

namespace lapidary {

void WriteProcessMetrics(MetricsText& page);

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_MONITOR_PROCESS_METRICS_H_
