#include "server/openai/chat_completion.h"

#include <boost/json/value_from.hpp>
#include <random>
#include <utility>

#include "server/openai/logprob_json.h"

namespace lapidary {
namespace {

std::string CallId() {
  static thread_local std::mt19937_64 engine{std::random_device{}()};
  return fmt::format("call_{:016x}{:08x}", engine(), engine() >> 32);
}

void Append(json::object& delta, const char* key, const std::string& text) {
  json::value& value = delta[key];
  if (value.is_null()) value = "";
  value.get_string().append(text);
}

}  // namespace

size_t ChatCompletion::MakeChoices() {
  const ReplyTokens tokens = TokensToParse();
  for (int i = 0; i < form_.n; ++i)
    choices_.push_back(
        {ReplyParser(*backend_->tokenizer, tokens, chat_.tools, chat_.start_in_thought),
         StopMatcher(form_.stops, form_.keep_stop),
         "",
         "",
         {},
         {},
         {},
         "",
         nullptr,
         {},
         false});
  return choices_.size();
}

// What is not parsed has no control tokens: it is given as content, like any text.
ReplyTokens ChatCompletion::TokensToParse() const {
  ReplyTokens tokens = ReplyTokens::Of(*backend_->tokenizer);
  if (!backend_->parses_reasoning) tokens.channel_open = tokens.channel_close = std::nullopt;
  if (!backend_->parses_tools) tokens.call_open = tokens.call_close = tokens.quote = std::nullopt;
  return tokens;
}

void ChatCompletion::OnEvent(size_t, TokenEvent event) {
  Choice& choice = choices_[static_cast<size_t>(event.choice)];
  if (!choice.finish.empty()) return;  // ended here by a stop string; this came too late
  if (!event.prompt_logprobs.empty() && form_.prompt_logprobs)
    prompt_logprobs_ = PromptLogprobsJson(backend_->tokenizer.get(), event.prompt_logprobs);
  json::object delta;
  Take(choice, event, delta);
  if (!choice.finish.empty()) {
    if (event.finish == FinishReason::kNone)
      backend_->engine->CancelChoice(requests_[0].id, event.choice);
  } else if (event.finish != FinishReason::kNone) {
    Apply(choice, choice.parser.Finish(), delta);
    if (choice.finish.empty()) {
      AddContent(choice, choice.stops.Finish(), delta);
      choice.finish = event.finish == FinishReason::kStop
                          ? (choice.calls.empty() ? "stop" : "tool_calls")
                      : event.finish == FinishReason::kLength ? "length"
                                                              : "abort";
    }
  }
  if (form_.stream && (!delta.empty() || !choice.finish.empty() || !choice.logprobs.empty() ||
                       !choice.token_ids.empty()))
    SendChunk(static_cast<size_t>(event.choice), std::move(delta));
  if (choice.finish.empty()) return;
  if (backend_->count_slips) backend_->count_slips(choice.parser.slips());
  EndChoice();
}

void ChatCompletion::Take(Choice& choice, const TokenEvent& event, json::object& delta) {
  int num_kept = 0;  // what comes after a stop string in the same step is not billed
  for (size_t i = 0; i < event.tokens.size() && choice.finish.empty(); ++i) {
    const int32_t token = event.tokens[i];
    ++num_kept;
    if (form_.token_ids) choice.token_ids.emplace_back(token);
    if (form_.num_logprobs >= 0 && i < event.logprobs.size())
      choice.logprobs.emplace_back(LogprobEntry(event.logprobs[i]));
    if (event.stop_id == token && i + 1 == event.tokens.size()) {
      choice.stop_reason = token;
      continue;  // the end token has no text
    }
    Apply(choice, choice.parser.Push(token), delta);
  }
  choice.usage.Take(event, num_kept);
}

void ChatCompletion::Apply(Choice& choice, const std::vector<ReplyDelta>& deltas,
                           json::object& delta) {
  for (const ReplyDelta& piece : deltas) {
    if (!choice.finish.empty()) return;
    switch (piece.kind) {
      case ReplyDelta::kReasoning:
        if (!chat_.include_reasoning) break;
        choice.reasoning += piece.text;
        Append(delta, "reasoning", piece.text);
        Append(delta, "reasoning_content", piece.text);
        break;
      case ReplyDelta::kContent: {
        const StopMatcher::Output output = choice.stops.Push(piece.text);
        AddContent(choice, output.text, delta);
        if (!output.matched) break;
        choice.finish = "stop";
        choice.stop_reason = form_.stops[*output.matched];
        break;
      }
      case ReplyDelta::kToolCall:
      case ReplyDelta::kToolArguments:
        AddCall(choice, piece, delta);
        break;
    }
  }
}

void ChatCompletion::AddContent(Choice& choice, const std::string& text, json::object& delta) {
  if (text.empty()) return;
  choice.content += text;
  Append(delta, "content", text);
}

void ChatCompletion::AddCall(Choice& choice, const ReplyDelta& piece, json::object& delta) {
  if (!chat_.parallel_calls && piece.index > 0) {
    choice.finish = "tool_calls";
    return;
  }
  json::value& list = delta["tool_calls"];
  if (list.is_null()) list = json::array();
  if (piece.kind == ReplyDelta::kToolCall) {
    choice.calls.push_back({CallId(), piece.text, ""});
    list.get_array().emplace_back(
        json::object{{"index", piece.index},
                     {"id", choice.calls.back().id},
                     {"type", "function"},
                     {"function", json::object{{"name", piece.text}, {"arguments", ""}}}});
    return;
  }
  choice.calls.back().arguments += piece.text;
  // One entry a call in each event.
  if (list.get_array().empty() || list.get_array().back().at("index") != piece.index)
    list.get_array().emplace_back(
        json::object{{"index", piece.index}, {"function", json::object{{"arguments", ""}}}});
  list.get_array().back().at("function").at("arguments").get_string().append(piece.text);
}

json::object ChatCompletion::LogprobEntry(const TokenLogprobs& entry) const {
  const auto describe = [&](int32_t id, float logprob) {
    const std::string bytes = backend_->tokenizer->TokenBytes(id);
    json::array numbers;
    for (const char byte : bytes) numbers.emplace_back(static_cast<unsigned char>(byte));
    return json::object{
        {"token",
         form_.ids_as_tokens ? TokenName(backend_->tokenizer.get(), true, id) : ToValidUtf8(bytes)},
        {"logprob", logprob},
        {"bytes", std::move(numbers)}};
  };
  json::object object = describe(entry.token, entry.logprob);
  json::array top;
  for (const auto& [id, logprob] : Alternatives(entry)) top.emplace_back(describe(id, logprob));
  object["top_logprobs"] = std::move(top);
  return object;
}

json::object ChatCompletion::Envelope(const char* object) const {
  return {{"id", form_.id},
          {"object", object},
          {"created", form_.created},
          {"model", form_.model},
          {"system_fingerprint", "lapidary"}};
}

json::object ChatCompletion::Usage() const {
  ChoiceUsage all;
  int64_t reasoning_tokens = 0;
  for (const Choice& choice : choices_) {
    all.Add(choice.usage);
    reasoning_tokens += choice.parser.num_reasoning_tokens();
  }
  all.cached_tokens = choices_[0].usage.cached_tokens;  // the choices share the prompt
  return UsageJson(static_cast<int64_t>(requests_[0].prompt.size()), all, reasoning_tokens);
}

void ChatCompletion::SendChunk(size_t index, json::object delta) {
  Choice& choice = choices_[index];
  // The role travels with the first token: clients time their first token by the first event with
  // choices.
  if (!choice.sent_role) delta["role"] = "assistant";
  choice.sent_role = true;
  json::object entry{{"index", index},
                     {"delta", std::move(delta)},
                     {"logprobs", nullptr},
                     {"finish_reason", nullptr}};
  if (!choice.logprobs.empty())
    entry["logprobs"] = json::object{{"content", std::move(choice.logprobs)}};
  choice.logprobs = json::array();
  if (form_.token_ids) entry["token_ids"] = std::exchange(choice.token_ids, {});
  if (!choice.finish.empty()) {
    entry["finish_reason"] = choice.finish;
    entry["stop_reason"] = choice.stop_reason;
    entry["matched_stop"] = choice.stop_reason;
    if (form_.timings) entry["timings"] = TimingsJson(choice.usage);
  }
  json::object chunk = Envelope("chat.completion.chunk");
  chunk["choices"] = json::array{std::move(entry)};
  AddPromptFields(chunk);
  if (form_.continuous_usage) chunk["usage"] = Usage();
  exchange_->Write("data: " + json::serialize(chunk) + "\n\n");
}

// Once a reply: in the first chunk, or beside the choices.
void ChatCompletion::AddPromptFields(json::object& reply) {
  if (form_.token_ids && !sent_prompt_ids_)
    reply["prompt_token_ids"] = json::value_from(requests_[0].prompt);
  sent_prompt_ids_ = true;
  if (!prompt_logprobs_.empty()) reply["prompt_logprobs"] = std::exchange(prompt_logprobs_, {});
}

json::object ChatCompletion::Message(const Choice& choice) const {
  json::object message{{"role", "assistant"}, {"content", choice.content}};
  if (choice.content.empty() && !choice.calls.empty()) message["content"] = nullptr;
  if (!choice.reasoning.empty()) {
    message["reasoning"] = choice.reasoning;
    message["reasoning_content"] = choice.reasoning;
  }
  if (choice.calls.empty()) return message;
  json::array calls;
  for (const Call& call : choice.calls)
    calls.emplace_back(json::object{
        {"id", call.id},
        {"type", "function"},
        {"function", json::object{{"name", call.name}, {"arguments", call.arguments}}}});
  message["tool_calls"] = std::move(calls);
  return message;
}

void ChatCompletion::FinishAll() {
  if (form_.stream) {
    if (form_.include_usage) {
      json::object last = Envelope("chat.completion.chunk");
      last["choices"] = json::array();
      last["usage"] = Usage();
      exchange_->Write("data: " + json::serialize(last) + "\n\n");
    }
    exchange_->Write("data: [DONE]\n\n");
    return exchange_->Finish();
  }
  json::object reply = Envelope("chat.completion");
  json::array choices;
  for (size_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    json::object entry{{"index", i},
                       {"message", Message(choice)},
                       {"logprobs", nullptr},
                       {"finish_reason", choice.finish},
                       {"stop_reason", choice.stop_reason},
                       {"matched_stop", choice.stop_reason}};
    if (form_.num_logprobs >= 0)
      entry["logprobs"] = json::object{{"content", std::move(choice.logprobs)}};
    if (form_.token_ids) entry["token_ids"] = std::move(choice.token_ids);
    if (form_.timings) entry["timings"] = TimingsJson(choice.usage);
    choices.emplace_back(std::move(entry));
  }
  reply["choices"] = std::move(choices);
  reply["usage"] = Usage();
  AddPromptFields(reply);
  Respond(json::serialize(reply));
}

}  // namespace lapidary
