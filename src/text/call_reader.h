// ReadCall: the model's call format to a name and JSON arguments.
#ifndef LAPIDARY_TEXT_CALL_READER_H_
#define LAPIDARY_TEXT_CALL_READER_H_

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "io/json.h"

namespace lapidary {

inline constexpr int kMaxCallDepth = 64;
// Stands for a quote token in a call's text; no byte of UTF-8.
inline constexpr char kQuoteMark = '\xff';

struct Call {
  std::string name, arguments;  // arguments: a JSON object in the order and digits of the model
};

// `text` is `call:NAME{...}`, valid UTF-8 but for the quote marks. `is_cut`: the text may end
// anywhere after the first `{`; what was begun is closed, and a bare value that may go on is left
// out. Nothing if the text breaks the grammar.
std::optional<Call> ReadCall(std::string_view text,
                             const std::unordered_map<std::string, json::object>& parameters,
                             bool is_cut);

}  // namespace lapidary

#endif  // LAPIDARY_TEXT_CALL_READER_H_
