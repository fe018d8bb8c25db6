// Random requests that use every parameter of the engine, some with a common beginning.
#ifndef LAPIDARY_TESTS_CROWD_REQUESTS_H_
#define LAPIDARY_TESTS_CROWD_REQUESTS_H_

#include <cstdint>
#include <random>
#include <vector>

#include "engine/request.h"
#include "model/config.h"

namespace lapidary {

class RequestMaker {
 public:
  // Prompts and answers fit into max_model_len.
  RequestMaker(const ModelConfig& config, int max_model_len, uint32_t seed);

  // With id and seed `id`.
  Request Make(uint64_t id);
  // Only a prompt of this length, a seed and max_tokens; greedy when temperature is 0.
  Request Plain(uint64_t id, int prompt_length, int max_tokens, float temperature = 1.0f);
  std::vector<int32_t> RandomIds(int count);
  // 1 of `n` times.
  bool OneOf(int n) { return Below(n) == 0; }
  int Below(int n) { return static_cast<int>(rng_() % static_cast<uint32_t>(n)); }

 private:
  void SetSampling(SamplingParams& sampling, int max_tokens);
  int32_t RandomId();

  const int vocab_size_, window_, max_model_len_;
  std::mt19937 rng_;
  std::vector<std::vector<int32_t>> systems_;  // common beginnings
};

}  // namespace lapidary

#endif  // LAPIDARY_TESTS_CROWD_REQUESTS_H_
