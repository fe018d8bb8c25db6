#include "server/openai/completion.h"

#include <boost/json/value_from.hpp>
#include <utility>

#include "server/openai/logprob_json.h"

namespace lapidary {
namespace {

json::object EmptyLogprobs() {
  return {{"tokens", json::array()},
          {"token_logprobs", json::array()},
          {"top_logprobs", json::array()},
          {"text_offset", json::array()}};
}

std::string Event(const json::object& object) {
  return "data: " + json::serialize(object) + "\n\n";
}

}  // namespace

size_t Completion::MakeChoices() {
  for (size_t i = 0; i < requests_.size() * static_cast<size_t>(form_.n); ++i)
    choices_.emplace_back(backend_->tokenizer.get(), form_);
  return choices_.size();
}

void Completion::OnEvent(size_t prompt, TokenEvent event) {
  const size_t index = prompt * static_cast<size_t>(form_.n) + static_cast<size_t>(event.choice);
  Choice& choice = choices_[index];
  if (!choice.finish.empty()) return;  // ended here by a stop string; this came too late
  const size_t before = choice.text.size();
  if (form_.num_logprobs >= 0 && choice.logprobs.empty()) choice.logprobs = EmptyLogprobs();
  Take(choice, prompt, event);
  if (choice.finish.empty() && event.finish != FinishReason::kNone) {
    if (choice.detokenizer)
      choice.text += choice.stops.Push(choice.detokenizer->Finish()).text + choice.stops.Finish();
    choice.finish = event.finish == FinishReason::kStop     ? "stop"
                    : event.finish == FinishReason::kLength ? "length"
                                                            : "abort";
  } else if (!choice.finish.empty() && event.finish == FinishReason::kNone) {
    backend_->engine->CancelChoice(requests_[prompt].id, event.choice);
  }
  if (form_.stream) {
    std::string delta = choice.text.substr(before);
    if (!delta.empty() || !choice.finish.empty() || !choice.token_ids.empty() ||
        (choice.logprobs.contains("tokens") && !choice.logprobs["tokens"].as_array().empty()))
      SendChunk(index, std::move(delta));
  }
  if (!choice.finish.empty()) EndChoice();
}

void Completion::Take(Choice& choice, size_t prompt, const TokenEvent& event) {
  if (choice.usage.num_tokens == 0 && form_.echo && choice.text.empty())
    AddEcho(choice, prompt, event);
  if (!event.prompt_logprobs.empty() && form_.prompt_logprobs)
    choice.prompt_logprobs = PromptLogprobsJson(backend_->tokenizer.get(), event.prompt_logprobs);
  choice.usage.Take(event, TakeTokens(choice, event));
}

int Completion::TakeTokens(Choice& choice, const TokenEvent& event) {
  const int num_tokens = static_cast<int>(event.tokens.size());
  for (size_t i = 0; i < event.tokens.size(); ++i) {
    const int32_t token = event.tokens[i];
    if (form_.token_ids) choice.token_ids.emplace_back(token);
    if (form_.num_logprobs >= 0)
      AddLogprobs(choice, i < event.logprobs.size() ? &event.logprobs[i] : nullptr, token);
    if (event.stop_id == token && i + 1 == event.tokens.size()) {
      choice.stop_reason = token;
      continue;  // the end token has no text
    }
    if (!choice.detokenizer) continue;
    const StopMatcher::Output output = choice.stops.Push(choice.detokenizer->Push(token));
    choice.text += output.text;
    if (output.matched) {
      choice.finish = "stop";
      choice.stop_reason = form_.stops[*output.matched];
      return static_cast<int>(i) + 1;  // what came after in the same step is not billed
    }
  }
  return num_tokens;
}

void Completion::AddEcho(Choice& choice, size_t prompt, const TokenEvent& event) {
  const std::vector<int32_t>& ids = requests_[prompt].prompt;
  if (choice.detokenizer) choice.text = backend_->tokenizer->Decode(ids, form_.skip_special);
  if (form_.num_logprobs < 0) return;
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool known = i < event.prompt_logprobs.size() && event.prompt_logprobs[i];
    AddLogprobs(choice, known ? &*event.prompt_logprobs[i] : nullptr, ids[i]);
  }
}

void Completion::AddLogprobs(Choice& choice, const TokenLogprobs* entry, int32_t token) {
  const Tokenizer* tokenizer = backend_->tokenizer.get();
  const std::string name = TokenName(tokenizer, form_.ids_as_tokens, token);
  json::object& lists = choice.logprobs;
  lists["tokens"].as_array().emplace_back(name);
  lists["text_offset"].as_array().emplace_back(choice.offset);
  if (tokenizer != nullptr && !(form_.skip_special && tokenizer->is_special(token)))
    choice.offset += tokenizer->TokenBytes(token).size();
  if (entry == nullptr) {
    lists["token_logprobs"].as_array().emplace_back(nullptr);
    lists["top_logprobs"].as_array().emplace_back(nullptr);
    return;
  }
  lists["token_logprobs"].as_array().emplace_back(entry->logprob);
  json::object top;
  for (const auto& [id, logprob] : Alternatives(*entry))
    top[TokenName(tokenizer, form_.ids_as_tokens, id)] = logprob;
  top[name] = entry->logprob;
  lists["top_logprobs"].as_array().emplace_back(std::move(top));
}

json::object Completion::Envelope() const {
  return {{"id", form_.id},
          {"object", "text_completion"},
          {"created", form_.created},
          {"model", form_.model},
          {"system_fingerprint", "lapidary"}};
}

json::object Completion::ChoiceObject(size_t index, std::string text) {
  Choice& choice = choices_[index];
  json::object object{{"index", index}, {"text", std::move(text)}, {"logprobs", nullptr}};
  if (!choice.logprobs.empty()) object["logprobs"] = std::exchange(choice.logprobs, {});
  if (choice.finish.empty())
    object["finish_reason"] = nullptr;
  else
    object["finish_reason"] = choice.finish;
  object["stop_reason"] = choice.stop_reason;
  object["matched_stop"] = choice.stop_reason;
  if (form_.timings && !choice.finish.empty()) object["timings"] = TimingsJson(choice.usage);
  if (form_.token_ids) {
    object["token_ids"] = std::exchange(choice.token_ids, {});
    if (!choice.begun)
      object["prompt_token_ids"] =
          json::value_from(requests_[index / static_cast<size_t>(form_.n)].prompt);
  }
  if (!choice.prompt_logprobs.empty())
    object["prompt_logprobs"] = std::exchange(choice.prompt_logprobs, {});
  choice.begun = true;
  return object;
}

json::object Completion::Usage() const {
  int64_t prompt_tokens = 0;
  for (const Request& request : requests_)
    prompt_tokens += static_cast<int64_t>(request.prompt.size());
  ChoiceUsage all;
  for (const Choice& choice : choices_) all.Add(choice.usage);
  for (size_t i = 0; i < choices_.size(); i += static_cast<size_t>(form_.n))
    all.cached_tokens += choices_[i].usage.cached_tokens;  // of each prompt once
  return UsageJson(prompt_tokens, all, 0);
}

void Completion::SendChunk(size_t index, std::string text) {
  json::object chunk = Envelope();
  chunk["choices"] = json::array{ChoiceObject(index, std::move(text))};
  if (form_.continuous_usage) chunk["usage"] = Usage();
  exchange_->Write(Event(chunk));
}

void Completion::FinishAll() {
  json::object reply = Envelope();
  if (form_.stream) {
    if (form_.include_usage) {
      reply["choices"] = json::array();
      reply["usage"] = Usage();
      exchange_->Write(Event(reply));
    }
    exchange_->Write("data: [DONE]\n\n");
    return exchange_->Finish();
  }
  json::array choices;
  for (size_t i = 0; i < choices_.size(); ++i)
    choices.emplace_back(ChoiceObject(i, choices_[i].text));
  reply["choices"] = std::move(choices);
  reply["usage"] = Usage();
  Respond(json::serialize(reply));
}

}  // namespace lapidary
