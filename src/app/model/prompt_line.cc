#include "app/model/prompt_line.h"

#include <fmt/core.h>

#include <fstream>
#include <utility>

#include "text/prompt_ids.h"

namespace lapidary {
namespace {

Error Wrong(std::string what) { return {std::move(what), "", ""}; }

// OpenAI's shape has a call's arguments as JSON text; the template wants the object.
Status ParseArguments(json::value& message) {
  if (!message.is_object()) return Ok{};
  json::value* calls = FindValue(message.get_object(), "tool_calls");
  if (calls == nullptr || !calls->is_array()) return Ok{};
  for (json::value& call : calls->get_array()) {
    json::value* function = call.is_object() ? FindValue(call.get_object(), "function") : nullptr;
    if (function == nullptr || !function->is_object()) continue;
    json::value* arguments = FindValue(function->get_object(), "arguments");
    if (arguments == nullptr || !arguments->is_string()) continue;
    Result<json::value> parsed = ParseJson(std::string(arguments->get_string()), "arguments");
    if (!parsed.ok()) return parsed.error();
    *arguments = std::move(parsed).value();
  }
  return Ok{};
}

}  // namespace

json::value* FindValue(json::object& object, std::string_view name) {
  json::value* value = object.if_contains(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

Result<PromptLine> PromptReader::Read(json::object& line) const {
  json::value* messages = FindValue(line, "messages");
  const json::value* prompt = FindValue(line, "prompt");
  const json::value* ids = FindValue(line, "prompt_token_ids");
  if ((messages != nullptr) + (prompt != nullptr) + (ids != nullptr) != 1)
    return Wrong("an item needs one of messages, prompt and prompt_token_ids");
  if (ids != nullptr) return ReadIds(*ids);
  if (tokenizer_ == nullptr) return Wrong("without a tokenizer only prompt_token_ids can be read");
  if (messages != nullptr) {
    if (!messages->is_array()) return Wrong("messages must be a list");
    return ReadMessages(messages->get_array(), line);
  }
  if (!prompt->is_string()) return Wrong("prompt must be a string");
  PromptLine read;
  read.ids = tokenizer_->Encode(prompt->get_string());
  const auto bos = tokenizer_->Find("<bos>");
  if (bos && (read.ids.empty() || read.ids[0] != *bos)) read.ids.insert(read.ids.begin(), *bos);
  return read;
}

Result<PromptLine> PromptReader::ReadMessages(json::array& messages, json::object& line) const {
  const json::value* tools = FindValue(line, "tools");
  if (tools != nullptr && !tools->is_array()) return Wrong("tools must be a list");
  const json::array* tool_list = tools == nullptr ? nullptr : &tools->get_array();
  RenderOptions options;
  if (const json::value* thinking = FindValue(line, "thinking")) {
    if (!thinking->is_bool()) return Wrong("thinking must be true or false");
    options.enable_thinking = thinking->get_bool();
  }
  for (json::value& message : messages)
    if (Status parsed = ParseArguments(message); !parsed.ok()) return parsed.error();
  const auto pieces = RenderChat(revision_, messages, tool_list, options);
  if (!pieces.ok()) return pieces.error();  // names its field
  return PromptLine{EncodePrompt(*tokenizer_, pieces.value()), DeclaredTools::Of(tool_list),
                    EndsInThought(pieces.value())};
}

Result<PromptLine> PromptReader::ReadIds(const json::value& ids) const {
  PromptLine read;
  if (ids.is_array())
    for (const json::value& id : ids.get_array()) {
      if (!id.is_int64() || id.get_int64() < 0 || id.get_int64() >= vocab_size_)
        return Wrong(fmt::format("prompt_token_ids must hold ids from 0 to {}", vocab_size_ - 1));
      read.ids.push_back(static_cast<int32_t>(id.get_int64()));
    }
  if (read.ids.empty()) return Wrong("prompt_token_ids must be a list of ids, such as [2, 17]");
  return read;
}

void ForEachJsonLine(const std::string& file,
                     const std::function<Status(json::object&, int number)>& take) {
  std::ifstream in(file);
  if (!in) throw StartupError(fmt::format("{} cannot be opened", file));
  std::string text;
  for (int number = 1; std::getline(in, text); ++number) {
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    Result<json::value> parsed = ParseJson(text, "the item");
    Status status = parsed.ok() ? Status(Ok{}) : Status(parsed.error());
    if (status.ok())
      status = parsed.value().is_object() ? take(parsed.value().get_object(), number)
                                          : Wrong("an item must be an object");
    if (!status.ok())
      throw StartupError(fmt::format("{}, line {}: {}", file, number, status.error().message));
  }
  if (in.bad()) throw StartupError(fmt::format("{} cannot be read", file));
}

}  // namespace lapidary
