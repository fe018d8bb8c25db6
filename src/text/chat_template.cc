#include "text/chat_template.h"

#include <fmt/core.h>

#include "base/sha256.h"
#include "text/template_values.h"
#include "text/template_writer.h"

namespace lapidary {
namespace {

using jinja::Equals;
using jinja::Get;
using jinja::IsArray;
using jinja::IsObject;
using jinja::IsString;
using jinja::IsTrue;
using jinja::Print;
using jinja::Trim;
using jinja::Value;

struct Known {
  TemplateRevision revision;
  std::string_view name, sha256;
};
constexpr Known kKnown[] = {
    {TemplateRevision::kEdge, "edge",
     "523fc86ed4db0357763963f4b0fdbce319903f1f68b2d03f593bef7a56836533"},
    {TemplateRevision::kThinkPrefill, "thinkprefill",
     "2af48814bacaf2a35a2d57aa19eee6c42ed530011977e8f414cf1d467da446c2"},
    {TemplateRevision::kApril, "april",
     "55572b8d3c8342044e25874c73fe5234b661fa0a57a57f6ef75b58e03d7d959a"},
};

// What the model said without its thoughts.
std::string StripThinking(std::string_view text) {
  constexpr std::string_view kOpen = "<|channel>", kClose = "<channel|>";
  std::string out;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(kClose, at), text.size());
    const std::string_view part = text.substr(at, end - at);
    out += part.substr(0, part.find(kOpen));
    at = end + kClose.size();
  }
  return std::string(Trim(out));
}

class Renderer {
 public:
  Renderer(TemplateRevision revision, const json::array& messages, const json::array* tools,
           const RenderOptions& options)
      : revision_(revision),
        messages_(messages),
        tools_(tools),
        options_(options),
        out_(revision) {}

  Result<std::vector<PromptPiece>> Run() {
    out_.Control("<bos>");
    const size_t first = FirstSystemTurn();
    for (size_t i = first; i < messages_.size(); ++i)
      if (Equals(Get(&messages_[i], "role"), "user")) last_user_ = i + 1;
    for (size_t i = first; i < messages_.size() && !out_.error(); ++i) {
      if (April())
        AprilMessage(i);
      else if (!IsTool(i))
        Message(i);
    }
    if (options_.add_generation_prompt) GenerationPrompt();
    if (const auto& error = out_.error()) return *error;
    return out_.Take();
  }

 private:
  enum class Last { kOther, kToolCall, kToolResponse };

  bool April() const { return revision_ == TemplateRevision::kApril; }
  bool IsTool(size_t i) const { return Equals(Get(&messages_[i], "role"), "tool"); }
  static std::string Path(size_t i, std::string_view field) {
    return fmt::format("messages[{}].{}", i, field);
  }

  // Returns the index of the first message that is a turn of its own.
  size_t FirstSystemTurn() {
    const bool has_tools = tools_ != nullptr && !tools_->empty();
    if (April() && messages_.empty()) out_.Fail("messages", "must not be empty");
    const Value role = messages_.empty() ? nullptr : Get(&messages_[0], "role");
    const bool has_system = Equals(role, "system") || Equals(role, "developer");
    if (!options_.enable_thinking && !has_tools && !has_system) return 0;
    out_.Control("<|turn>");
    out_.Text("system\n");
    if (options_.enable_thinking) {
      out_.Control("<|think|>");
      if (!April()) out_.Text("\n");
    }
    if (has_system) SystemText(Get(&messages_[0], "content"));
    for (size_t i = 0; has_tools && i < tools_->size(); ++i) {
      out_.Control("<|tool>");
      out_.Declaration((*tools_)[i], fmt::format("tools[{}]", i));
      out_.Control("<tool|>");
    }
    EndTurn();
    return has_system ? 1 : 0;
  }

  void SystemText(Value content) {
    if (IsString(content) || April()) return out_.Text(Trim(Print(content)));
    if (!IsArray(content)) return;
    for (const json::value& item : content->get_array()) {
      out_.Text(Trim(Print(Get(&item, "text"))));
      out_.Text(" ");
    }
  }

  void StartTurn(const std::string& role) {
    out_.Control("<|turn>");
    out_.Text(role + "\n");
  }

  void EndTurn() {
    out_.Control("<turn|>");
    out_.Text("\n");
  }

  void Calls(size_t i, Value calls) {
    if (!IsArray(calls)) return out_.Fail(Path(i, "tool_calls"), "must be a list");
    for (size_t k = 0; k < calls->get_array().size(); ++k) {
      const std::string path = Path(i, fmt::format("tool_calls[{}].function", k));
      const Value function = Get(&calls->get_array()[k], "function");
      const Value arguments = Get(function, "arguments");
      out_.Control("<|tool_call>");
      out_.Text("call:" + out_.NeedString(Get(function, "name"), path + ".name") + "{");
      if (IsObject(arguments))
        out_.Pairs(arguments->get_object());
      else if (April() && IsString(arguments))
        out_.Text(Print(arguments));
      else if (!April() && !jinja::IsNone(arguments))
        out_.Fail(path + ".arguments",
                  "must be a JSON object, not a string: parse it before rendering");
      out_.Text("}");
      out_.Control("<tool_call|>");
    }
    last_ = Last::kToolCall;
  }

  void Responses(size_t i, Value responses) {
    if (!IsArray(responses)) return out_.Fail(Path(i, "tool_responses"), "must be a list");
    for (size_t k = 0; k < responses->get_array().size(); ++k) {
      const json::value& response = responses->get_array()[k];
      const Value name = Get(&response, "name");
      const bool unnamed = April() ? name == nullptr : !IsTrue(name);
      const std::string path = Path(i, fmt::format("tool_responses[{}].name", k));
      out_.ToolResponse(unnamed ? "unknown" : out_.NeedString(name, path),
                        Get(&response, "response"));
      last_ = Last::kToolResponse;
    }
  }

  // The results that follow message i as tool messages.
  void FollowingResults(size_t i, Value calls) {
    for (size_t k = i + 1; k < messages_.size() && IsTool(k); ++k) {
      const Value result = &messages_[k];
      std::string name = IsTrue(Get(result, "name")) ? Print(Get(result, "name")) : "unknown";
      for (const json::value& call : calls->get_array())
        if (SameId(Get(&call, "id"), Get(result, "tool_call_id")))
          name = Print(Get(Get(&call, "function"), "name"));
      ToolResult(name, Get(result, "content"), Path(k, "content"));
      last_ = Last::kToolResponse;
    }
  }

  // A missing id equals null, as in the template.
  static bool SameId(Value a, Value b) {
    static const json::value kNull;
    return (a != nullptr ? *a : kNull) == (b != nullptr ? *b : kNull);
  }

  void ToolResult(const std::string& name, Value body, const std::string& path) {
    static const json::value kNull;
    if (IsObject(body)) return out_.Fail(path, "must be a string or a list of parts");
    if (!IsArray(body)) return out_.ToolResponse(name, body != nullptr ? body : &kNull);
    std::string text;
    for (const json::value& part : body->get_array()) {
      if (!part.is_object()) out_.Fail(path, "must be a list of parts that are objects");
      if (Equals(Get(&part, "type"), "text") && Get(&part, "text") != nullptr)
        text += out_.NeedString(Get(&part, "text"), path);
    }
    const json::value value(text);
    out_.ToolResponse(name, &value);
    for (const json::value& part : body->get_array()) Media(Get(&part, "type"));
  }

  void Media(Value type) {
    const bool alias = !April();
    const std::string_view around = April() ? "\n\n" : "";
    if (Equals(type, "audio") || (alias && Equals(type, "input_audio"))) {
      out_.Control("<|audio|>");
    } else if (Equals(type, "image") || (alias && Equals(type, "image_url"))) {
      out_.Text(around);
      out_.Control("<|image|>");
      out_.Text(around);
    } else if (Equals(type, "video")) {
      out_.Text(around);
      out_.Control("<|video|>");
      out_.Text(around);
    } else {
      return;
    }
    if (April()) last_ = Last::kOther;
  }

  // Returns whether anything but white space was written.
  bool Content(size_t i, bool is_model) {
    const Value content = Get(&messages_[i], "content");
    if (IsString(content)) return Spoken(content, is_model, Path(i, "content"));
    if (IsObject(content)) out_.Fail(Path(i, "content"), "must be a string or a list of parts");
    if (!IsArray(content)) return false;
    bool any = false;
    for (size_t k = 0; k < content->get_array().size(); ++k) {
      const json::value& part = content->get_array()[k];
      const std::string path = Path(i, fmt::format("content[{}]", k));
      if (!part.is_object()) out_.Fail(path, "must be an object");
      const size_t before = out_.pieces().size();
      if (Equals(Get(&part, "type"), "text"))
        any = Spoken(Get(&part, "text"), is_model, path + ".text") || any;
      else
        Media(Get(&part, "type"));
      any = any || out_.pieces().size() > before;
    }
    return any;
  }

  bool Spoken(Value text, bool is_model, const std::string& path) {
    const std::string written =
        is_model ? StripThinking(out_.NeedString(text, path)) : std::string(Trim(Print(text)));
    out_.Text(written);
    return !written.empty();
  }

  void Message(size_t i) {
    const Value message = &messages_[i];
    last_ = Last::kOther;
    const std::string said = out_.NeedString(Get(message, "role"), Path(i, "role"));
    const bool is_model = said == "assistant" || said == "model";
    if (!is_model || previous_role_ != "assistant") StartTurn(is_model ? "model" : said);
    const Value calls = Get(message, "tool_calls");
    Thought(i, IsTrue(calls));
    if (IsTrue(calls)) Calls(i, calls);
    if (IsTrue(Get(message, "tool_responses")))
      Responses(i, Get(message, "tool_responses"));
    else if (IsTrue(calls) && IsArray(calls))
      FollowingResults(i, calls);
    const bool has_results = last_ == Last::kToolResponse;
    const bool has_content = Content(i, is_model);
    size_t next = i + 1;
    while (next < messages_.size() && IsTool(next)) ++next;
    const bool has_next = next < messages_.size();
    const bool continues = is_model && has_next &&
                           Equals(Get(&messages_[next], "role"), "assistant") &&
                           (!IsTrue(calls) || has_results);
    if (last_ == Last::kToolCall)
      out_.Control("<|tool_response>");
    else if (!continues && !(has_results && !has_content && !has_next))
      EndTurn();
    previous_role_ = said;
  }

  void Thought(size_t i, bool has_calls) {
    const bool named = IsTrue(Get(&messages_[i], "reasoning"));
    const std::string_view field = named ? "reasoning" : "reasoning_content";
    const Value thought = Get(&messages_[i], field);
    if (!IsTrue(thought)) return;
    if (i < last_user_ && !(options_.preserve_thinking && has_calls)) return;
    out_.Control("<|channel>");
    out_.Text("thought\n" + out_.NeedString(thought, Path(i, field)) + "\n");
    out_.Control("<channel|>");
  }

  void AprilMessage(size_t i) {
    const Value message = &messages_[i];
    last_ = Last::kOther;
    const std::string said = out_.NeedString(Get(message, "role"), Path(i, "role"));
    const bool is_model = said == "assistant" || said == "model";
    StartTurn(is_model ? "model" : said);
    if (IsTrue(Get(message, "tool_calls"))) Calls(i, Get(message, "tool_calls"));
    const bool has_results = IsTrue(Get(message, "tool_responses"));
    if (has_results) Responses(i, Get(message, "tool_responses"));
    Content(i, is_model);
    if (!has_results || IsTrue(Get(message, "content"))) EndTurn();
  }

  void GenerationPrompt() {
    if (last_ == Last::kOther || (April() && last_ == Last::kToolCall)) {
      StartTurn("model");
      if (revision_ != TemplateRevision::kThinkPrefill || options_.enable_thinking) return;
      out_.Control("<|channel>");
      out_.Text("thought\n");
      out_.Control("<channel|>");
    } else if (!April() && last_ == Last::kToolResponse && options_.enable_thinking) {
      out_.Control("<|channel>");
      out_.Text("thought\n");
    }
  }

  TemplateRevision revision_;
  const json::array& messages_;
  const json::array* tools_;
  RenderOptions options_;
  TemplateWriter out_;
  Last last_ = Last::kOther;
  size_t last_user_ = 0;  // index after the last user message
  std::string previous_role_;
};

}  // namespace

Result<std::vector<PromptPiece>> RenderChat(TemplateRevision revision, const json::array& messages,
                                            const json::array* tools,
                                            const RenderOptions& options) {
  return Renderer(revision, messages, tools, options).Run();
}

std::string JoinPrompt(const std::vector<PromptPiece>& pieces) {
  std::string out;
  for (const PromptPiece& piece : pieces) out += piece.text;
  return out;
}

std::optional<TemplateRevision> RecogniseTemplate(std::string_view jinja_text) {
  const size_t end = jinja_text.find_last_not_of(" \t\r\n\v\f");
  const std::string hash = Sha256Hex(jinja_text.substr(0, end + 1));
  for (const Known& known : kKnown)
    if (known.sha256 == hash) return known.revision;
  return std::nullopt;
}

TemplateRevision DefaultTemplate(bool has_per_layer_embeddings) {
  return has_per_layer_embeddings ? TemplateRevision::kEdge : TemplateRevision::kThinkPrefill;
}

std::string_view TemplateName(TemplateRevision revision) {
  for (const Known& known : kKnown)
    if (known.revision == revision) return known.name;
  return "";
}

std::optional<TemplateRevision> TemplateByName(std::string_view name) {
  for (const Known& known : kKnown)
    if (known.name == name) return known.revision;
  return std::nullopt;
}

}  // namespace lapidary
