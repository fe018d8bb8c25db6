// ChatPartner: who answers in a chat. Both kinds speak the server's own stream of events, so that a
// conversation in process and one over HTTP are the same.
#ifndef LAPIDARY_APP_CHAT_CHAT_PARTNER_H_
#define LAPIDARY_APP_CHAT_CHAT_PARTNER_H_

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "io/json.h"
#include "server/openai/completion.h"

namespace lapidary {

class ChatPartner {
 public:
  using OnEvent = std::function<void(const json::object& event)>;
  using Interrupted = std::function<bool()>;

  virtual ~ChatPartner() = default;
  // Sends the body of a streamed POST /v1/chat/completions and hands over each event on the
  // caller's thread until the reply is over. `interrupted` is asked every 50 ms; once it says true
  // the request is cancelled and Ok is returned. The error is one sentence for a person.
  virtual Status Stream(const json::object& body, const OnEvent& on_event,
                        const Interrupted& interrupted) = 0;
};

// The engine of this process, through the server's own request checks and reply.
std::unique_ptr<ChatPartner> MakeLocalPartner(std::shared_ptr<TokenEngine> engine, Backend backend);

// A running OpenAI-compatible server at http://HOST[:PORT][/PATH], PATH with or without /v1.
// `model` empty: the first one that the server lists. Throws StartupError when the URL is none or
// the server does not answer.
std::unique_ptr<ChatPartner> MakeRemotePartner(const std::string& url, const std::string& api_key,
                                               const std::string& model);

}  // namespace lapidary

#endif  // LAPIDARY_APP_CHAT_CHAT_PARTNER_H_
