#include "server/native/generate.h"

#include <boost/json/value_from.hpp>
#include <utility>

#include "server/openai/logprob_json.h"

namespace lapidary {

size_t Generate::MakeChoices() {
  for (size_t i = 0; i < requests_.size() * static_cast<size_t>(form_.n); ++i) {
    Choice& choice = choices_.emplace_back(form_);
    if (backend_->tokenizer) choice.detokenizer.emplace(*backend_->tokenizer, form_.skip_special);
  }
  return choices_.size();
}

void Generate::OnEvent(size_t prompt, TokenEvent event) {
  const auto n = static_cast<size_t>(form_.n);
  const auto index = static_cast<size_t>(event.choice);
  Choice& choice = choices_[prompt * n + index];
  if (!choice.finish.is_null()) return;  // ended here by a stop string; this came too late
  if (!event.prompt_logprobs.empty()) AddInputLogprobs(choice, prompt, event);
  choice.usage.Take(event, TakeTokens(choice, event));
  if (!choice.finish.is_null()) {
    if (event.finish == FinishReason::kNone)
      backend_->engine->CancelChoice(requests_[prompt].id, event.choice);
  } else if (event.finish != FinishReason::kNone) {
    if (choice.detokenizer)
      choice.text += choice.stops.Push(choice.detokenizer->Finish()).text + choice.stops.Finish();
    if (event.finish == FinishReason::kStop)
      choice.finish = {{"type", "stop"}, {"matched", nullptr}};
    else if (event.finish == FinishReason::kLength)
      choice.finish = {{"type", "length"}, {"length", choice.ids.size()}};
    else
      choice.finish = {{"type", "abort"}, {"message", "The request was cancelled."}};
    if (event.stop_id) choice.finish.as_object()["matched"] = *event.stop_id;
  }
  if (form_.stream) {
    json::object reply = ReplyOf(prompt, index);
    if (choices_.size() > 1) reply["index"] = prompt * n + index;
    exchange_->Write("data: " + json::serialize(reply) + "\n\n");
  }
  if (!choice.finish.is_null()) EndChoice();
}

int Generate::TakeTokens(Choice& choice, const TokenEvent& event) {
  for (size_t i = 0; i < event.tokens.size(); ++i) {
    const int32_t token = event.tokens[i];
    choice.ids.push_back(token);
    if (native_.logprobs && i < event.logprobs.size()) {
      choice.output_logprobs.emplace_back(Entry(event.logprobs[i].logprob, token));
      choice.output_top.emplace_back(TopEntries(event.logprobs[i]));
    }
    const bool is_end = event.stop_id == token && i + 1 == event.tokens.size();
    if (is_end || !choice.detokenizer) continue;  // the end token has no text
    const StopMatcher::Output output = choice.stops.Push(choice.detokenizer->Push(token));
    choice.text += output.text;
    if (!output.matched) continue;
    choice.finish = {{"type", "stop"}, {"matched", form_.stops[*output.matched]}};
    return static_cast<int>(i) + 1;  // what came after in the same step is not billed
  }
  return static_cast<int>(event.tokens.size());
}

void Generate::AddInputLogprobs(Choice& choice, size_t prompt, const TokenEvent& event) {
  const std::vector<int32_t>& ids = requests_[prompt].prompt;
  const auto first = static_cast<size_t>(std::max(native_.logprob_start, 0));
  for (size_t i = first; i < ids.size() && i < event.prompt_logprobs.size(); ++i) {
    const auto& entry = event.prompt_logprobs[i];
    // Nothing predicts what the scoring begins with.
    const bool known = entry && i > first;
    choice.input_logprobs.emplace_back(
        Entry(known ? std::optional(entry->logprob) : std::nullopt, ids[i]));
    choice.input_top.emplace_back(known ? TopEntries(*entry) : json::value(nullptr));
  }
}

json::array Generate::Entry(std::optional<float> logprob, int32_t id) const {
  json::array entry{nullptr, id, nullptr};
  if (logprob) entry[0] = *logprob;
  if (native_.text_in_logprobs) entry[2] = TokenName(backend_->tokenizer.get(), false, id);
  return entry;
}

json::value Generate::TopEntries(const TokenLogprobs& entry) const {
  json::array top;
  for (const auto& [id, logprob] : Alternatives(entry)) top.emplace_back(Entry(logprob, id));
  return top.empty() ? json::value(nullptr) : json::value(std::move(top));
}

json::object Generate::ReplyOf(size_t prompt, size_t index) const {
  const Choice& choice = choices_[prompt * static_cast<size_t>(form_.n) + index];
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start_;
  // Tokens a target step, its own counted; 1 without drafts.
  const int steps = static_cast<int>(choice.ids.size()) - choice.usage.accepted_tokens;
  json::object meta{
      {"id", form_.id},
      {"finish_reason", choice.finish},
      {"prompt_tokens", requests_[prompt].prompt.size()},
      {"completion_tokens", choice.ids.size()},
      {"cached_tokens", choice.usage.cached_tokens},
      {"spec_accept_length", steps > 0 ? static_cast<double>(choice.ids.size()) / steps : 1.0},
      {"e2e_latency", spent.count()},
      {"weight_version", "default"}};
  if (form_.timings && !choice.finish.is_null()) meta["timings"] = TimingsJson(choice.usage);
  if (native_.logprobs) {
    meta["input_token_logprobs"] = choice.input_logprobs;
    meta["output_token_logprobs"] = choice.output_logprobs;
    meta["input_top_logprobs"] = choice.input_top;
    meta["output_top_logprobs"] = choice.output_top;
  }
  return {{"text", choice.text},
          {"output_ids", json::value_from(choice.ids)},
          {"meta_info", std::move(meta)}};
}

void Generate::FinishAll() {
  if (form_.stream) {
    exchange_->Write("data: [DONE]\n\n");
    return exchange_->Finish();
  }
  json::array replies;
  for (size_t prompt = 0; prompt < requests_.size(); ++prompt)
    for (size_t i = 0; i < static_cast<size_t>(form_.n); ++i)
      replies.emplace_back(ReplyOf(prompt, i));
  Respond(native_.is_list || form_.n > 1 ? json::serialize(replies) : json::serialize(replies[0]));
}

}  // namespace lapidary
