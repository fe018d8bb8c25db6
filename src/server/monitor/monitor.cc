#include "server/monitor/monitor.h"

#include "server/monitor/engine_metrics.h"
#include "server/monitor/process_metrics.h"

namespace lapidary {
namespace {

constexpr int64_t kStallMs = 3000;

}  // namespace

bool MakesProgress(const EngineStats& stats) {
  const int64_t now = std::chrono::duration_cast<std::chrono::milliseconds>(
                          std::chrono::steady_clock::now().time_since_epoch())
                          .count();
  return stats.num_running + stats.num_queued == 0 || now - stats.last_progress_ms < kStallMs;
}

Monitor::Monitor(const ApiOptions& options)
    : name_(options.served_names.front()), version_(options.version) {}

std::string Monitor::MetricsPage(const TokenEngine* engine, int64_t ignored_fields) {
  MetricsText page;
  page.AddLabels("vllm:", {{"model_name", name_}, {"engine", "0"}});
  page.AddLabels("sglang:", {{"model_name", name_}});
  page.AddLabels("lapidary:", {{"model_name", name_}});
  if (engine != nullptr) {
    const EngineStats stats = engine->stats();
    Look(stats);
    WriteEngineMetrics(stats, page);
    const std::lock_guard lock(mutex_);
    page.Gauge("sglang:gen_throughput", "Generated tokens a second since the last look.",
               tokens_a_second_);
    page.Gauge("sglang:spec_accept_length", "Tokens a burst, the target's own counted.",
               AcceptLength(stats));
  }
  requests_->WriteTo(page);
  page.Counter("lapidary:ignored_fields_total", "Request fields without a meaning here.",
               static_cast<double>(ignored_fields));
  http_->WriteTo(page);
  WriteProcessMetrics(page);
  return page.Take();
}

void Monitor::Look(const EngineStats& stats) {
  const auto now = std::chrono::steady_clock::now();
  const std::lock_guard lock(mutex_);
  const std::chrono::duration<double> passed = now - looked_;
  if (passed.count() < 1) return;
  if (looked_.time_since_epoch().count() > 0)
    tokens_a_second_ =
        static_cast<double>(stats.generated_tokens - looked_tokens_) / passed.count();
  looked_ = now;
  looked_tokens_ = stats.generated_tokens;
}

void Monitor::ResetAcceptance(const EngineStats& stats) {
  const std::lock_guard lock(mutex_);
  bursts_at_reset_ = stats.num_bursts;
  accepted_at_reset_ = stats.accepted_tokens;
}

double Monitor::AcceptLength(const EngineStats& stats) const {
  return 1.0 +
         Share(stats.accepted_tokens - accepted_at_reset_, stats.num_bursts - bursts_at_reset_);
}

json::object Monitor::ServerInfo(const TokenEngine& engine, const json::object& started_with) {
  const EngineStats stats = engine.stats();
  Look(stats);
  json::object info{{"version", version_},
                    {"served_model_name", name_},
                    {"status", "ready"},
                    {"max_model_len", engine.max_model_len()},
                    {"max_total_num_tokens", stats.max_total_tokens}};
  for (const auto& [key, value] : started_with) info[key] = value;
  const std::lock_guard lock(mutex_);
  info["internal_states"] = json::array{json::object{
      {"avg_spec_accept_length", AcceptLength(stats)}, {"last_gen_throughput", tokens_a_second_}}};
  return info;
}

json::object Monitor::ModelInfo() const {
  return {{"model_path", name_},
          {"tokenizer_path", name_},
          {"served_model_name", name_},
          {"is_generation", true},
          {"preferred_sampling_params", nullptr},
          {"weight_version", "default"},
          {"model_type", "gemma4"},
          {"has_image_understanding", false},
          {"has_audio_understanding", false}};
}

json::object Monitor::Loads(const TokenEngine& engine) {
  const EngineStats stats = engine.stats();
  Look(stats);
  const std::lock_guard lock(mutex_);
  const json::object memory{{"used_slabs", stats.used_slabs},
                            {"total_slabs", stats.total_slabs},
                            {"full_pages", stats.full_pages},
                            {"sliding_pages", stats.sliding_pages},
                            {"idle_pages", stats.idle_pages}};
  const json::object load{
      {"dp_rank", 0},
      {"num_running_reqs", stats.num_running},
      {"num_waiting_reqs", stats.num_queued},
      {"num_total_reqs", stats.num_running + stats.num_queued},
      {"num_used_tokens", stats.full_pages * kPageTokens},
      {"num_total_tokens", stats.full_pages * kPageTokens},
      {"max_total_num_tokens", stats.max_total_tokens},
      {"token_usage", Share(stats.used_slabs, stats.total_slabs)},
      {"gen_throughput", tokens_a_second_},
      {"cache_hit_rate", Share(stats.cache_hits, stats.cache_queries)},
      {"utilization", Share(stats.num_running, stats.max_running_requests)},
      {"max_running_requests", stats.max_running_requests},
      {"memory", memory},
      {"speculative",
       json::object{{"accept_length", AcceptLength(stats)},
                    {"accept_rate", Share(stats.accepted_tokens, stats.drafted_tokens)}}},
      {"queues", json::object{{"waiting", stats.num_queued}}}};
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return {{"timestamp", std::chrono::duration<double>(now).count()},
          {"version", version_},
          {"loads", json::array{load}}};
}

}  // namespace lapidary
