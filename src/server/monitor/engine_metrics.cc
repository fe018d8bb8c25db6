#include "server/monitor/engine_metrics.h"

namespace lapidary {
namespace {

double Number(int64_t count) { return static_cast<double>(count); }

void WriteLoad(const EngineStats& stats, MetricsText& page) {
  constexpr const char* kRunning = "Sequences in the steps.";
  constexpr const char* kWaiting = "Requests that wait for their first step.";
  page.Gauge("vllm:num_requests_running", kRunning, stats.num_running);
  page.Gauge("vllm:num_requests_waiting", kWaiting, stats.num_queued);
  page.Family("vllm:num_requests_waiting_by_reason", "gauge", kWaiting);
  page.Sample(stats.num_queued, {{"reason", "capacity"}});
  page.Gauge("sglang:num_running_reqs", kRunning, stats.num_running);
  page.Gauge("sglang:num_queue_reqs", kWaiting, stats.num_queued);
  page.Gauge("sglang:utilization", "Running sequences of those that may run.",
             Share(stats.num_running, stats.max_running_requests));
}

void WriteMemory(const EngineStats& stats, MetricsText& page) {
  constexpr const char* kUsage = "Slabs of the KV cache in use, of all; evictable ones are free.";
  const double usage = Share(stats.used_slabs, stats.total_slabs);
  page.Gauge("vllm:kv_cache_usage_perc", kUsage, usage);
  page.Gauge("vllm:gpu_cache_usage_perc", kUsage, usage);
  page.Gauge("sglang:token_usage", "Slabs of full pages in use, of all.",
             Share(stats.used_full_slabs, stats.total_slabs));
  page.Gauge("sglang:swa_token_usage", "Slabs of sliding pages in use, of all.",
             Share(stats.used_slabs - stats.used_full_slabs, stats.total_slabs));
  page.Gauge("sglang:num_used_tokens", "Tokens of the full pages in use.",
             Number(stats.full_pages * kPageTokens));
  page.Gauge("sglang:max_total_num_tokens", "Tokens that the KV cache holds at the planned mix.",
             Number(stats.max_total_tokens));
  const std::string pages = std::to_string(stats.max_total_tokens / kPageTokens);
  const std::string page_tokens = std::to_string(kPageTokens);
  page.Family("vllm:cache_config_info", "gauge", "The KV cache's layout.");
  page.Sample(1, {{"block_size", page_tokens}, {"num_gpu_blocks", pages}});
  page.Family("sglang:cache_config_info", "gauge", "The KV cache's layout.");
  page.Sample(1, {{"page_size", page_tokens}, {"num_pages", pages}});
  page.Family("lapidary:pages", "gauge", "Pages of the KV cache.");
  page.Sample(Number(stats.full_pages), {{"kind", "full"}, {"state", "used"}});
  page.Sample(Number(stats.sliding_pages), {{"kind", "sliding"}, {"state", "used"}});
  page.Sample(Number(stats.idle_pages), {{"kind", "any"}, {"state", "idle"}});
  page.Family("lapidary:slabs", "gauge", "Slabs of the KV cache.");
  page.Sample(Number(stats.used_full_slabs), {{"kind", "full"}});
  page.Sample(Number(stats.used_slabs - stats.used_full_slabs), {{"kind", "sliding"}});
  page.Sample(Number(stats.total_slabs - stats.used_slabs), {{"kind", "free"}});
}

void WriteTokens(const EngineStats& stats, MetricsText& page) {
  const double prompt = Number(stats.prompt_tokens), generated = Number(stats.generated_tokens);
  const double cached = Number(stats.cache_hits);
  page.Counter("vllm:prompt_tokens_total", "Prompt tokens taken in.", prompt);
  page.Counter("vllm:generation_tokens_total", "Tokens generated.", generated);
  page.Counter("vllm:prompt_tokens_cached_total", "Prompt tokens from the prefix cache.", cached);
  page.Counter("vllm:prompt_tokens_recomputed_total", "Tokens computed again after a retraction.",
               Number(stats.recomputed_tokens));
  page.Family("vllm:prompt_tokens_by_source_total", "counter", "Prompt tokens by source.");
  page.Sample(prompt - cached, {{"source", "local_compute"}});
  page.Sample(cached, {{"source", "local_cache_hit"}});
  page.Counter("sglang:prompt_tokens_total", "Prompt tokens taken in.", prompt);
  page.Counter("sglang:generation_tokens_total", "Tokens generated.", generated);
  page.Family("sglang:cached_tokens_total", "counter", "Prompt tokens from the prefix cache.");
  page.Sample(cached, {{"cache_source", "device"}});
  page.Family("sglang:realtime_tokens_total", "counter", "Tokens by what was done for them.");
  page.Sample(prompt - cached, {{"mode", "prefill_compute"}});
  page.Sample(cached, {{"mode", "prefill_cache"}});
  page.Sample(generated, {{"mode", "decode"}});
  page.Counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up.",
               Number(stats.cache_queries));
  page.Counter("vllm:prefix_cache_hits_total", "Prompt tokens found.", cached);
  page.Counter("vllm:external_prefix_cache_queries_total", "There is no such cache.", 0);
  page.Counter("vllm:external_prefix_cache_hits_total", "There is no such cache.", 0);
  page.Gauge("sglang:cache_hit_rate", "Prompt tokens found, of those looked up.",
             Share(stats.cache_hits, stats.cache_queries));
}

void WriteDrafts(const EngineStats& stats, MetricsText& page) {
  page.Counter("vllm:spec_decode_num_drafts_total", "Bursts of drafts.", Number(stats.num_bursts));
  page.Counter("vllm:spec_decode_num_draft_tokens_total", "Tokens drafted.",
               Number(stats.drafted_tokens));
  page.Counter("vllm:spec_decode_num_accepted_tokens_total", "Drafts accepted.",
               Number(stats.accepted_tokens));
  page.Family("vllm:spec_decode_num_accepted_tokens_per_pos_total", "counter",
              "Drafts accepted, by their place in the burst.");
  for (size_t i = 0; i < stats.accepted_by_place.size(); ++i)
    page.Sample(Number(stats.accepted_by_place[i]), {{"position", std::to_string(i)}});
  page.Gauge("sglang:spec_accept_rate", "Drafts accepted, of those made.",
             Share(stats.accepted_tokens, stats.drafted_tokens));
}

}  // namespace

void WriteEngineMetrics(const EngineStats& stats, MetricsText& page) {
  WriteLoad(stats, page);
  WriteMemory(stats, page);
  WriteTokens(stats, page);
  WriteDrafts(stats, page);
  constexpr const char* kRetracted = "Running sequences put back into the queue.";
  constexpr const char* kNonfinite = "Rows whose logits were not finite.";
  page.Counter("vllm:num_preemptions_total", kRetracted, Number(stats.preemptions));
  page.Counter("sglang:num_retracted_requests_total", kRetracted, Number(stats.preemptions));
  page.Counter("vllm:corrupted_requests_total", kNonfinite, Number(stats.nonfinite_rows));
  page.Counter("lapidary:nonfinite_rows_total", kNonfinite, Number(stats.nonfinite_rows));
  page.Counter("lapidary:stall_total", "Times the scheduler had work and could plan none.",
               Number(stats.stalls));
  page.Counter("lapidary:steps_total", "Steps of the model.", Number(stats.num_steps));
}

}  // namespace lapidary
