// SseReader: the data of a server-sent event stream that arrives in pieces.
#ifndef LAPIDARY_APP_CHAT_SSE_READER_H_
#define LAPIDARY_APP_CHAT_SSE_READER_H_

#include <string>
#include <string_view>
#include <vector>

#include "app/chat/chat_partner.h"

namespace lapidary {

// Passes over comments, empty lines and fields other than data. An event is one data line, as every
// OpenAI-compatible server sends them.
class SseReader {
 public:
  // The data of each line that `bytes` completes.
  std::vector<std::string> Push(std::string_view bytes);

 private:
  std::string line_;
};

// Hands the events in `bytes` to `on_event`, without the last [DONE]. The error: an event that is
// an error or no JSON object.
Status GiveEvents(SseReader& reader, std::string_view bytes, const ChatPartner::OnEvent& on_event);

// The sentence in an error body of OpenAI's shape, or nothing known.
std::string ErrorMessage(const json::value& body);

}  // namespace lapidary

#endif  // LAPIDARY_APP_CHAT_SSE_READER_H_
