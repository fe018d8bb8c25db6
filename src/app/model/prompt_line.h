// PromptReader: the prompt of a line of a JSON Lines file: {"messages": [...]} with "tools" and
// "thinking", {"prompt": "text"} or {"prompt_token_ids": [...]}.
#ifndef LAPIDARY_APP_MODEL_PROMPT_LINE_H_
#define LAPIDARY_APP_MODEL_PROMPT_LINE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/json.h"
#include "text/chat_template.h"
#include "text/reply_parser.h"
#include "text/tokenizer.h"

namespace lapidary {

struct PromptLine {
  std::vector<int32_t> ids;
  DeclaredTools tools;
  bool starts_in_thought = false;
};

class PromptReader {
 public:
  // Without a tokenizer (null) only ids can be read. It outlives this object.
  PromptReader(TemplateRevision revision, const Tokenizer* tokenizer, int vocab_size)
      : revision_(revision), tokenizer_(tokenizer), vocab_size_(vocab_size) {}
  // Calls' arguments that are JSON text become objects. The error names the field.
  Result<PromptLine> Read(json::object& line) const;

 private:
  Result<PromptLine> ReadMessages(json::array& messages, json::object& line) const;
  Result<PromptLine> ReadIds(const json::value& ids) const;

  TemplateRevision revision_;
  const Tokenizer* tokenizer_;
  int vocab_size_;
};

// The value of a key; null if absent or null.
json::value* FindValue(json::object& object, std::string_view name);

// Calls `take` for each line that holds a JSON object; empty lines are passed over. An error of the
// file, of a line or of `take` is thrown as a StartupError that names the line.
void ForEachJsonLine(const std::string& file,
                     const std::function<Status(json::object&, int number)>& take);

}  // namespace lapidary

#endif  // LAPIDARY_APP_MODEL_PROMPT_LINE_H_
