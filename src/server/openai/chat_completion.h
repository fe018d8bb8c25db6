// ChatCompletion: one POST /v1/chat/completions from its request to its last byte.
#ifndef LAPIDARY_SERVER_OPENAI_CHAT_COMPLETION_H_
#define LAPIDARY_SERVER_OPENAI_CHAT_COMPLETION_H_

#include <memory>
#include <string>
#include <vector>

#include "server/openai/chat_request.h"
#include "server/openai/completion.h"

namespace lapidary {

// Owned by the sink and the exchange; all work runs on the exchange's strand.
class ChatCompletion : public std::enable_shared_from_this<ChatCompletion> {
 public:
  ChatCompletion(std::shared_ptr<const Backend> backend, std::shared_ptr<Exchange> exchange,
                 ReplyForm form, ChatForm chat);
  void Start(Request request);
  void Abort();  // from any thread; the reply ends as aborted

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
  void OnEvent(TokenEvent event);
  void Take(Choice& choice, const TokenEvent& event, json::object& delta);
  void Apply(Choice& choice, const std::vector<ReplyDelta>& deltas, json::object& delta);
  void AddContent(Choice& choice, const std::string& text, json::object& delta);
  void AddCall(Choice& choice, const ReplyDelta& piece, json::object& delta);
  json::object LogprobEntry(const TokenLogprobs& entry) const;
  void SendChunk(size_t index, json::object delta);
  void FinishAll();
  void Fail(HttpResponse response);
  json::object Envelope(const char* object) const;
  void AddPromptFields(json::object& reply);
  json::object Message(const Choice& choice) const;
  json::object Usage() const;

  std::shared_ptr<const Backend> backend_;
  std::shared_ptr<Exchange> exchange_;
  ReplyForm form_;
  ChatForm chat_;
  uint64_t request_id_ = 0;
  std::vector<int32_t> prompt_ids_;
  json::array prompt_logprobs_;  // not sent yet
  bool sent_prompt_ids_ = false;
  std::vector<Choice> choices_;
  size_t num_open_ = 0;
  bool done_ = false;
};

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_OPENAI_CHAT_COMPLETION_H_
