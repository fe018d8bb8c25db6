#include "app/chat/sse_reader.h"

#include <fmt/core.h>

namespace lapidary {
namespace {

constexpr size_t kMaxEventBytes = size_t{16} << 20;

}  // namespace

std::vector<std::string> SseReader::Push(std::string_view bytes) {
  std::vector<std::string> found;
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    line_.append(bytes.substr(0, end));
    if (line_.size() > kMaxEventBytes) line_.clear();
    if (end == std::string_view::npos) break;
    bytes.remove_prefix(end + 1);
    if (line_.ends_with('\r')) line_.pop_back();
    if (line_.starts_with("data:"))
      found.push_back(line_.substr(line_.starts_with("data: ") ? 6 : 5));
    line_.clear();
  }
  return found;
}

std::string ErrorMessage(const json::value& body) {
  const json::object* object = body.if_object();
  const json::value* error = object == nullptr ? nullptr : object->if_contains("error");
  if (error == nullptr) return "";
  if (error->is_string()) return std::string(error->get_string());
  const json::object* fields = error->if_object();
  const json::value* message = fields == nullptr ? nullptr : fields->if_contains("message");
  if (message == nullptr || !message->is_string()) return "the server reports an error";
  return std::string(message->get_string());
}

Status GiveEvents(SseReader& reader, std::string_view bytes, const ChatPartner::OnEvent& on_event) {
  for (const std::string& data : reader.Push(bytes)) {
    if (data == "[DONE]") continue;
    const Result<json::value> event = ParseJson(data, "an event of the reply");
    if (!event.ok()) return event.error();
    if (std::string message = ErrorMessage(event.value()); !message.empty())
      return Error{std::move(message), "", ""};
    if (!event.value().is_object()) return Error{"an event of the reply is no object", "", ""};
    on_event(event.value().get_object());
  }
  return Ok{};
}

}  // namespace lapidary
