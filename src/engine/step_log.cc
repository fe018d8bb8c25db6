#include "engine/step_log.h"

#include <fmt/core.h>

namespace lapidary {
namespace {

double Rate(int64_t count, int64_t begin_us, int64_t end_us) {
  return begin_us == 0 || end_us <= begin_us
             ? 0.0
             : static_cast<double>(count) * 1e6 / static_cast<double>(end_us - begin_us);
}

double Share(int64_t part, int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

std::string StepLog::Line(const StepFacts& facts) {
  if (decode_interval_ == 0) return {};
  if (at_line_.now_us == 0) at_line_ = facts;
  if (facts.num_new_tokens > 0) return PrefillLine(facts);
  prefill_time_us_ = 0;
  if (++num_decode_steps_ < decode_interval_) return {};
  return DecodeLine(facts);
}

std::string StepLog::PrefillLine(const StepFacts& facts) {
  const double rate = Rate(facts.num_new_tokens, prefill_time_us_, facts.now_us);
  prefill_time_us_ = facts.now_us;
  return fmt::format(
      "Prefill batch, #new-seq: {}, #new-token: {}, #cached-token: {}, full token usage: {:.2f}, "
      "swa token usage: {:.2f}, #running-req: {}, #queue-req: {}, input throughput (token/s): "
      "{:.2f}",
      facts.num_new_sequences, facts.num_new_tokens, facts.num_cached_tokens, facts.full_usage,
      facts.sliding_usage, facts.num_running, facts.num_queued, rate);
}

std::string StepLog::DecodeLine(const StepFacts& facts) {
  const int64_t bursts = facts.num_bursts - at_line_.num_bursts;
  const int64_t accepted = facts.accepted - at_line_.accepted;
  const std::string line = fmt::format(
      "Decode batch, #running-req: {}, #full token: {}, full token usage: {:.2f}, swa token usage: "
      "{:.2f}, accept len: {:.2f}, accept rate: {:.2f}, cuda graph: False, gen throughput "
      "(token/s): {:.2f}, #queue-req: {}, #retracted-req: {}",
      facts.num_running, facts.full_tokens, facts.full_usage, facts.sliding_usage,
      1.0 + Share(accepted, bursts), Share(accepted, facts.drafted - at_line_.drafted),
      Rate(facts.generated_tokens - at_line_.generated_tokens, at_line_.now_us, facts.now_us),
      facts.num_queued, facts.retractions - at_line_.retractions);
  num_decode_steps_ = 0;
  at_line_ = facts;
  return line;
}

}  // namespace lapidary
