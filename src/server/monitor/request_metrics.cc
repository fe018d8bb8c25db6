#include "server/monitor/request_metrics.h"

namespace lapidary {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

const Buckets kFirstToken = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                             1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const Buckets kInterToken = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                             .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
const Buckets kRequest = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                          30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const Buckets kTokens = {1,    2,    5,    10,    20,    50,    100,    200,   500,
                         1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000};
const Buckets kChoices = {1, 2, 5, 10, 20};

constexpr const char* kReasons[] = {"", "stop", "length", "abort", "error"};

double Seconds(int64_t from_us, int64_t to_us) {
  return static_cast<double>(to_us - from_us) / 1e6;
}

// One histogram under the names that vLLM and SGLang give it.
void Write(MetricsText& page, const prometheus::Histogram& histogram, const char* help,
           std::initializer_list<const char*> names) {
  const auto collected = histogram.Collect().histogram;
  for (const char* name : names) {
    page.Family(name, "histogram", help);
    page.Histogram(collected);
  }
}

}  // namespace

RequestMetrics::RequestMetrics()
    : time_to_first_token(kFirstToken),
      inter_token(kInterToken),
      request_token_time(kInterToken),
      e2e(kRequest),
      queue(kRequest),
      prefill(kRequest),
      decode(kRequest),
      inference(kRequest),
      prompt_tokens(kTokens),
      computed_tokens(kTokens),
      generated_tokens(kTokens),
      max_tokens(kTokens),
      num_choices(kChoices) {}

void RequestMetrics::Finished(FinishReason reason, const RequestTimes& times, int num_tokens) {
  finished_[static_cast<size_t>(reason)].Increment();
  generated_tokens.Observe(num_tokens);
  if (times.newest_token_us == 0) return;
  e2e.Observe(Seconds(times.arrival_us, times.newest_token_us));
  queue.Observe(Seconds(times.arrival_us, times.first_step_us));
  prefill.Observe(Seconds(times.first_step_us, times.first_token_us));
  const double decoding = Seconds(times.first_token_us, times.newest_token_us);
  decode.Observe(decoding);
  inference.Observe(Seconds(times.first_step_us, times.newest_token_us));
  if (num_tokens > 1) request_token_time.Observe(decoding / (num_tokens - 1));
}

void RequestMetrics::Refused(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  ++refused_[reason];
}

void RequestMetrics::Slipped(const SlipCounts& slips) {
  for (size_t i = 0; i < slips.size(); ++i) slips_[i].Increment(slips[i]);
}

void RequestMetrics::WriteTo(MetricsText& page) const {
  WriteLatencies(page);
  WriteShapes(page);
  double aborted = 0;
  page.Family("vllm:request_success_total", "counter", "Choices that ended, by reason.");
  for (size_t i = 1; i < finished_.size(); ++i)
    page.Sample(finished_[i].Value(), {{"finished_reason", kReasons[i]}});
  aborted = finished_[static_cast<size_t>(FinishReason::kAbort)].Value();
  page.Counter("sglang:num_requests_total", "Requests taken.", num_requests.Value());
  page.Counter("sglang:num_aborted_requests_total", "Choices that were cancelled.", aborted);
  page.Family("lapidary:parser_slips_total", "counter", "Repairs of the model's reply format.");
  for (size_t i = 0; i < slips_.size(); ++i)
    page.Sample(slips_[i].Value(), {{"kind", std::string(kSlipNames[i])}});
  page.Family("lapidary:refused_requests_total", "counter", "Requests the engine refused.");
  const std::lock_guard lock(mutex_);
  if (refused_.empty()) page.Sample(0, {{"reason", "queue_full"}});
  for (const auto& [reason, count] : refused_) page.Sample(count, {{"reason", reason}});
}

void RequestMetrics::WriteLatencies(MetricsText& page) const {
  Write(page, time_to_first_token, "Seconds from a request's arrival to its first token.",
        {"vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds"});
  Write(page, inter_token, "Seconds between a choice's tokens of two steps.",
        {"vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds",
         "sglang:inter_token_latency_seconds"});
  Write(page, request_token_time, "Seconds a token after the first, by choice.",
        {"vllm:request_time_per_output_token_seconds"});
  Write(page, e2e, "Seconds from arrival to the last token.",
        {"vllm:e2e_request_latency_seconds", "sglang:e2e_request_latency_seconds"});
  Write(page, queue, "Seconds from arrival to the first step.",
        {"vllm:request_queue_time_seconds", "sglang:queue_time_seconds"});
  Write(page, prefill, "Seconds from the first step to the first token.",
        {"vllm:request_prefill_time_seconds"});
  Write(page, decode, "Seconds from the first token to the last.",
        {"vllm:request_decode_time_seconds"});
  Write(page, inference, "Seconds from the first step to the last token.",
        {"vllm:request_inference_time_seconds"});
  page.Family("sglang:per_stage_req_latency_seconds", "histogram", "Seconds in a stage.");
  page.Histogram(queue.Collect().histogram, {{"stage", "prefill_waiting"}});
  page.Histogram(prefill.Collect().histogram, {{"stage", "prefill_forward"}});
  page.Histogram(decode.Collect().histogram, {{"stage", "decode_forward"}});
}

void RequestMetrics::WriteShapes(MetricsText& page) const {
  Write(page, prompt_tokens, "Tokens of a prompt.",
        {"vllm:request_prompt_tokens", "sglang:prompt_tokens_histogram"});
  Write(page, computed_tokens, "Tokens of a prompt that were not in the prefix cache.",
        {"vllm:request_prefill_kv_computed_tokens"});
  Write(page, generated_tokens, "Tokens of a choice.",
        {"vllm:request_generation_tokens", "sglang:generation_tokens_histogram"});
  Write(page, max_tokens, "Tokens a request may generate.",
        {"vllm:request_max_num_generation_tokens", "vllm:request_params_max_tokens"});
  Write(page, num_choices, "Choices of a request.", {"vllm:request_params_n"});
}

}  // namespace lapidary
