// ReplyParser: the model's reply, token by token, to reasoning, content and tool calls (GEMMA4.md
// 13). One state machine for all wire formats.
#ifndef LAPIDARY_TEXT_REPLY_PARSER_H_
#define LAPIDARY_TEXT_REPLY_PARSER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/json.h"
#include "text/call_reader.h"
#include "text/tokenizer.h"

namespace lapidary {

// The control tokens of a reply. A vocabulary may lack some: the rules of those are then off.
struct ReplyTokens {
  std::optional<int32_t> channel_open, channel_close, call_open, call_close, quote, response_open,
      turn_close, eos;
  static ReplyTokens Of(const Tokenizer& tokenizer);
};

// The functions of a request's `tools` with the JSON schemas of their parameters.
struct DeclaredTools {
  std::unordered_map<std::string, json::object> parameters;
  // From OpenAI's array; entries of another shape are passed over. `tools` may be null.
  static DeclaredTools Of(const json::array* tools);
};

// A reply's next piece. `text` is always valid UTF-8 and never empty, except a kToolCall's name.
struct ReplyDelta {
  // kToolCall opens call `index`, text is its name; kToolArguments adds to its JSON text.
  enum Kind : uint8_t { kReasoning, kContent, kToolCall, kToolArguments };
  Kind kind;
  int index;  // of the call, from 0; 0 for text
  std::string text;
  bool operator==(const ReplyDelta&) const = default;
};

// What breaks the grammar: a control token where none may be, a call without its opening token, a
// call that is none or breaks off.
enum class Slip : uint8_t { kControl, kBareCall, kBrokenCall };
inline constexpr std::array<std::string_view, 3> kSlipNames = {"control", "bare_call",
                                                               "broken_call"};
using SlipCounts = std::array<int, kSlipNames.size()>;

// Never fails: what breaks the grammar is repaired or given as content, and counted. No text of a
// control token is ever given out as content or reasoning. A call is given as its text comes, see
// CallReader: one that is malformed before its first value is content as a whole, one that breaks
// later is closed there and its rest is content. Several thoughts are joined by a newline.
class ReplyParser {
 public:
  // `start_in_thought`: the prompt ends in an open thought channel. `tokenizer` outlives this.
  ReplyParser(const Tokenizer& tokenizer, const ReplyTokens& tokens, DeclaredTools tools,
              bool start_in_thought);

  std::vector<ReplyDelta> Push(int32_t id);
  // The reply is over, perhaps cut: what was held back. Called once, last.
  std::vector<ReplyDelta> Finish();

  bool has_calls() const { return num_calls_ > 0; }
  int num_reasoning_tokens() const { return num_reasoning_tokens_; }  // with the channel's tokens
  const SlipCounts& slips() const { return slips_; }

 private:
  enum class State : uint8_t { kContent, kThought, kCall, kBareCall, kBrokenCall };

  void PushControl(int32_t id);
  void PushText(std::string_view text);
  void PushContent(std::string_view text);
  void PushThought(std::string_view text);
  void PushCall(std::string_view text);
  void PushQuote();
  // Leaves the present state, whose text is over: `complete` if by the token that closes it.
  void Leave(bool complete);
  void BeginCall(State state);
  // What is known of the call; the whole or the rest of one that broke, and `rest`, as content.
  void GiveCall();
  void BreakCall(std::string_view rest);
  void Count(Slip slip) { ++slips_[static_cast<size_t>(slip)]; }
  void Emit(ReplyDelta::Kind kind, int index, std::string text);

  const Tokenizer* tokenizer_;
  ReplyTokens tokens_;
  std::shared_ptr<const DeclaredTools> tools_;  // call_ refers to it
  State state_;
  Utf8Assembler utf8_;
  std::vector<ReplyDelta> out_;
  // Text not given out yet. Thought: a part of its name, or a last newline. Content: a part of
  // `call:NAME{` at the start of a line.
  std::string held_;
  CallReader call_;
  bool call_given_ = false;    // its name
  bool thought_head_ = false;  // the thought may still begin with its name
  bool thought_joins_ = false, has_thought_ = false;
  bool line_start_ = true;
  int num_calls_ = 0, num_reasoning_tokens_ = 0;
  SlipCounts slips_{};
};

}  // namespace lapidary

#endif  // LAPIDARY_TEXT_REPLY_PARSER_H_
