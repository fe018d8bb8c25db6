#include "server/openai/logprob_json.h"

#include <fmt/core.h>

#include <algorithm>

namespace lapidary {

std::string TokenName(const Tokenizer* tokenizer, bool as_id, int32_t id) {
  if (tokenizer == nullptr || as_id) return fmt::format("token_id:{}", id);
  std::string bytes = tokenizer->TokenBytes(id);
  if (ToValidUtf8(bytes) == bytes) return bytes;
  std::string name = "bytes:";
  for (const char byte : bytes) name += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  return name;
}

std::vector<std::pair<int32_t, float>> Alternatives(const TokenLogprobs& entry) {
  std::vector<std::pair<int32_t, float>> all = entry.top;
  for (const auto& [id, logprob] : entry.asked) {
    const bool known = std::any_of(all.begin(), all.end(),
                                   [asked = id](const auto& one) { return one.first == asked; });
    if (!known) all.emplace_back(id, logprob);
  }
  return all;
}

json::array PromptLogprobsJson(const Tokenizer* tokenizer,
                               const std::vector<std::optional<TokenLogprobs>>& entries) {
  json::array list;
  for (const std::optional<TokenLogprobs>& entry : entries) {
    if (!entry) {
      list.emplace_back(nullptr);
      continue;
    }
    json::object position;
    const auto add = [&](int32_t id, float logprob, json::value rank) {
      position[std::to_string(id)] =
          json::object{{"logprob", logprob},
                       {"rank", std::move(rank)},
                       {"decoded_token", TokenName(tokenizer, false, id)}};
    };
    add(entry->token, entry->logprob, nullptr);
    for (size_t i = 0; i < entry->top.size(); ++i)
      add(entry->top[i].first, entry->top[i].second, i + 1);
    list.emplace_back(std::move(position));
  }
  return list;
}

}  // namespace lapidary
