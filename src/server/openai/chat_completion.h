// ChatCompletion: one POST /v1/chat/completions from its request to its last byte.
#ifndef LAPIDARY_SERVER_OPENAI_CHAT_COMPLETION_H_
#define LAPIDARY_SERVER_OPENAI_CHAT_COMPLETION_H_

#include <memory>
#include <string>
#include <vector>

#include "server/openai/chat_request.h"
#include "server/openai/choice_usage.h"
#include "server/openai/reply.h"
#include "text/stop_matcher.h"

namespace lapidary {

class ChatCompletion : public Reply {
 public:
  ChatCompletion(std::shared_ptr<const Backend> backend, std::shared_ptr<Exchange> exchange,
                 ReplyForm form, ChatForm chat)
      : Reply(std::move(backend), std::move(exchange), std::move(form)), chat_(std::move(chat)) {}

 private:
  struct Call {
    std::string id, name, arguments;
  };
  struct Choice {
    ReplyParser parser;
    StopMatcher stops;
    std::string content, reasoning;
    std::vector<Call> calls;
    json::array logprobs, token_ids;  // not sent yet
    std::string finish;               // empty while it runs
    json::value stop_reason;
    ChoiceUsage usage;
    bool sent_role = false;
  };

  ReplyTokens TokensToParse() const;
  size_t MakeChoices() override;
  void OnEvent(size_t prompt, TokenEvent event) override;  // there is one prompt
  void Take(Choice& choice, const TokenEvent& event, json::object& delta);
  void Apply(Choice& choice, const std::vector<ReplyDelta>& deltas, json::object& delta);
  void AddContent(Choice& choice, const std::string& text, json::object& delta);
  void AddCall(Choice& choice, const ReplyDelta& piece, json::object& delta);
  json::object LogprobEntry(const TokenLogprobs& entry) const;
  void SendChunk(size_t index, json::object delta);
  void FinishAll() override;
  json::object Envelope(const char* object) const;
  void AddPromptFields(json::object& reply);
  json::object Message(const Choice& choice) const;
  json::object Usage() const;

  const ChatForm chat_;
  json::array prompt_logprobs_;  // not sent yet
  bool sent_prompt_ids_ = false;
  std::vector<Choice> choices_;
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_OPENAI_CHAT_COMPLETION_H_
