#include "text/reply_parser.h"

#include <algorithm>
#include <utility>

namespace lapidary {
namespace {

constexpr std::string_view kThoughtName = "thought\n";
constexpr std::string_view kCallPrefix = "call:";

enum class Match : uint8_t { kNo, kMaybe, kYes };

// Whether a line begins with, or may still grow to, `call:NAME{` of a declared tool.
Match MatchBareCall(std::string_view line, const DeclaredTools& tools) {
  Match best = Match::kNo;
  for (const auto& [name, schema] : tools.parameters) {
    const std::string opening = std::string(kCallPrefix) + name + "{";
    if (line.starts_with(opening)) return Match::kYes;
    if (opening.starts_with(line)) best = Match::kMaybe;
  }
  return best;
}

}  // namespace

ReplyTokens ReplyTokens::Of(const Tokenizer& tokenizer) {
  ReplyTokens tokens;
  tokens.channel_open = tokenizer.Find("<|channel>");
  tokens.channel_close = tokenizer.Find("<channel|>");
  tokens.call_open = tokenizer.Find("<|tool_call>");
  tokens.call_close = tokenizer.Find("<tool_call|>");
  tokens.quote = tokenizer.Find("<|\"|>");
  tokens.response_open = tokenizer.Find("<|tool_response>");
  tokens.turn_close = tokenizer.Find("<turn|>");
  tokens.eos = tokenizer.Find("<eos>");
  return tokens;
}

DeclaredTools DeclaredTools::Of(const json::array* tools) {
  DeclaredTools declared;
  if (tools == nullptr) return declared;
  for (const json::value& tool : *tools) {
    const json::object* entry = tool.if_object();
    const json::value* function = entry != nullptr ? entry->if_contains("function") : nullptr;
    const json::object* body = function != nullptr ? function->if_object() : nullptr;
    const json::value* name = body != nullptr ? body->if_contains("name") : nullptr;
    if (name == nullptr || !name->is_string() || name->get_string().empty()) continue;
    const json::value* parameters = body->if_contains("parameters");
    declared.parameters[std::string(name->get_string())] =
        parameters != nullptr && parameters->is_object() ? parameters->get_object()
                                                         : json::object();
  }
  return declared;
}

ReplyParser::ReplyParser(const Tokenizer& tokenizer, const ReplyTokens& tokens, DeclaredTools tools,
                         bool start_in_thought)
    : tokenizer_(&tokenizer),
      tokens_(tokens),
      tools_(std::make_shared<const DeclaredTools>(std::move(tools))),
      state_(start_in_thought ? State::kThought : State::kContent),
      call_(tools_->parameters) {}

std::vector<ReplyDelta> ReplyParser::Push(int32_t id) {
  const bool in_thought = state_ == State::kThought;
  if (id == tokens_.quote)
    PushQuote();
  else if (tokenizer_->is_special(id) || id == tokens_.channel_open ||
           id == tokens_.channel_close || id == tokens_.call_open || id == tokens_.call_close ||
           id == tokens_.response_open || id == tokens_.turn_close || id == tokens_.eos)
    PushControl(id);
  else
    PushText(utf8_.Push(tokenizer_->TokenBytes(id)));
  if ((in_thought && id != tokens_.call_open) || state_ == State::kThought) ++num_reasoning_tokens_;
  return std::exchange(out_, {});
}

std::vector<ReplyDelta> ReplyParser::Finish() {
  Leave(false);
  state_ = State::kContent;
  return std::exchange(out_, {});
}

void ReplyParser::PushControl(int32_t id) {
  const bool in_call = state_ != State::kContent && state_ != State::kThought;
  if (id == tokens_.channel_open) {
    if (state_ == State::kThought || in_call) Count(Slip::kControl);
    Leave(false);
    state_ = State::kThought;
    thought_head_ = true;
    thought_joins_ = has_thought_;
  } else if (id == tokens_.channel_close) {
    if (state_ != State::kThought) Count(Slip::kControl);
    Leave(state_ == State::kThought);
    state_ = State::kContent;
  } else if (id == tokens_.call_open) {
    if (state_ != State::kContent) Count(Slip::kControl);
    Leave(state_ == State::kThought);
    BeginCall(State::kCall);
  } else if (id == tokens_.call_close && in_call) {
    Leave(true);
    state_ = State::kContent;
  } else if (id == tokens_.response_open || id == tokens_.turn_close || id == tokens_.eos) {
    if (in_call) Count(Slip::kControl);
    Leave(state_ == State::kThought);
    state_ = State::kContent;
  } else {
    Count(Slip::kControl);
    PushText(utf8_.Finish());  // a character does not go on behind a control token
  }
}

void ReplyParser::PushQuote() {
  PushText(utf8_.Finish());
  if (state_ == State::kCall || state_ == State::kBareCall)
    PushCall({&kQuoteMark, 1});
  else if (state_ == State::kBrokenCall)
    PushText("\"");
  else
    Count(Slip::kControl);
}

void ReplyParser::PushText(std::string_view text) {
  if (text.empty()) return;
  switch (state_) {
    case State::kContent:
      return PushContent(text);
    case State::kThought:
      return PushThought(text);
    case State::kCall:
    case State::kBareCall:
      return PushCall(text);
    case State::kBrokenCall:
      return Emit(ReplyDelta::kContent, 0, std::string(text));
  }
}

void ReplyParser::PushContent(std::string_view text) {
  held_ += text;
  while (!held_.empty()) {
    if (line_start_) {
      const Match match = MatchBareCall(held_, *tools_);
      if (match == Match::kMaybe) return;
      if (match == Match::kYes) {
        Count(Slip::kBareCall);
        BeginCall(State::kBareCall);
        return PushCall(std::exchange(held_, {}));
      }
    }
    const size_t newline = held_.find('\n');
    const size_t end = newline == std::string::npos ? held_.size() : newline + 1;
    Emit(ReplyDelta::kContent, 0, held_.substr(0, end));
    held_.erase(0, end);
    line_start_ = newline != std::string::npos;
  }
}

void ReplyParser::PushThought(std::string_view text) {
  held_ += text;
  if (thought_head_) {
    if (held_.size() < kThoughtName.size() && kThoughtName.starts_with(held_)) return;
    if (held_.starts_with(kThoughtName)) held_.erase(0, kThoughtName.size());
    thought_head_ = false;
  }
  const size_t end = held_.ends_with('\n') ? held_.size() - 1 : held_.size();
  if (end == 0) return;
  if (std::exchange(thought_joins_, false)) Emit(ReplyDelta::kReasoning, 0, "\n");
  Emit(ReplyDelta::kReasoning, 0, held_.substr(0, end));
  held_.erase(0, end);
  has_thought_ = true;
}

void ReplyParser::BeginCall(State state) {
  state_ = state;
  call_ = CallReader(tools_->parameters);
  call_given_ = false;
}

void ReplyParser::PushCall(std::string_view text) {
  const bool is_bare = state_ == State::kBareCall;
  const std::string_view rest = text.substr(call_.Push(text));
  GiveCall();
  if (call_.is_broken() ||
      (!is_bare && rest.find_first_not_of(" \t\r\n") != std::string_view::npos))
    return BreakCall(rest);
  if (!is_bare || !call_.is_over()) return;
  state_ = State::kContent;
  line_start_ = false;
  PushContent(rest);
}

void ReplyParser::GiveCall() {
  if (!call_.has_begun()) return;
  if (!std::exchange(call_given_, true)) Emit(ReplyDelta::kToolCall, num_calls_++, call_.name());
  Emit(ReplyDelta::kToolArguments, num_calls_ - 1, call_.TakeJson());
}

void ReplyParser::BreakCall(std::string_view rest) {
  Count(Slip::kBrokenCall);
  std::string text = call_.TakeUnread().append(rest);
  std::replace(text.begin(), text.end(), kQuoteMark, '"');
  Emit(ReplyDelta::kContent, 0, std::move(text));
  state_ = state_ == State::kBareCall ? State::kContent : State::kBrokenCall;
  line_start_ = false;
}

void ReplyParser::Leave(bool complete) {
  PushText(utf8_.Finish());
  switch (state_) {
    case State::kContent:
      Emit(ReplyDelta::kContent, 0, std::exchange(held_, {}));
      break;
    case State::kThought:
      // A name alone is no thought; the newline before the closing token is not part of it.
      if (!thought_head_ && !complete && has_thought_) Emit(ReplyDelta::kReasoning, 0, held_);
      held_.clear();
      thought_head_ = false;
      break;
    case State::kCall:
    case State::kBareCall:
      call_.End(!complete);
      GiveCall();
      if (call_.is_broken()) BreakCall({});
      break;
    case State::kBrokenCall:
      break;
  }
  line_start_ = true;
}

void ReplyParser::Emit(ReplyDelta::Kind kind, int index, std::string text) {
  if (text.empty()) return;
  const bool is_text = kind == ReplyDelta::kReasoning || kind == ReplyDelta::kContent;
  if (is_text && !out_.empty() && out_.back().kind == kind)
    out_.back().text += text;
  else
    out_.push_back({kind, index, std::move(text)});
}

}  // namespace lapidary
