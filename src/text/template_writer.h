// TemplateWriter: collects the pieces of a prompt and writes what all revisions share: arguments,
// tool declarations, tool results. The first error stops nothing but is kept.
#ifndef LAPIDARY_TEXT_TEMPLATE_WRITER_H_
#define LAPIDARY_TEXT_TEMPLATE_WRITER_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat_template.h"
#include "text/template_values.h"

namespace lapidary {

class TemplateWriter {
 public:
  explicit TemplateWriter(TemplateRevision revision)
      : april_(revision == TemplateRevision::kApril) {}

  void Control(std::string_view text) { pieces_.push_back({std::string(text), true}); }
  void Text(std::string_view text);
  void Quoted(std::string_view text);
  void Declaration(const json::value& tool, const std::string& path);
  void Argument(jinja::Value value, bool escape_keys);
  // key:value pairs of call arguments and of structured results.
  void Pairs(const json::object& object);
  void ToolResponse(const std::string& name, jinja::Value response);

  void Fail(std::string path, std::string_view problem);
  // The value's text, or a failure if it is not a string.
  std::string NeedString(jinja::Value value, const std::string& path);

  const std::optional<Error>& error() const { return error_; }
  const std::vector<PromptPiece>& pieces() const { return pieces_; }
  std::vector<PromptPiece> Take() { return std::move(pieces_); }

 private:
  void Parameters(jinja::Value properties, bool filter_keys);
  void Parameter(const json::value& value);
  void Items(const json::object& items);
  void ObjectSchema(const json::value& value, bool& comma);
  void List(jinja::Value items);  // [ quoted, quoted ]
  void Comma(bool& comma);

  bool april_;
  std::string path_;  // of the tool being declared
  std::vector<PromptPiece> pieces_;
  std::optional<Error> error_;
};

}  // namespace lapidary

#endif  // LAPIDARY_TEXT_TEMPLATE_WRITER_H_
