#include "text/template_writer.h"

#include <fmt/core.h>

namespace lapidary {

using jinja::Get;
using jinja::IsArray;
using jinja::IsObject;
using jinja::IsTrue;
using jinja::Print;
using jinja::Upper;
using jinja::Value;

namespace {

bool IsStandardKey(std::string_view key) {
  return key == "description" || key == "type" || key == "properties" || key == "required" ||
         key == "nullable";
}

std::string_view Key(const json::key_value_pair& member) {
  return {member.key().data(), member.key().size()};
}

}  // namespace

void TemplateWriter::Text(std::string_view text) {
  if (text.empty()) return;
  if (pieces_.empty() || pieces_.back().is_control) pieces_.push_back({});
  pieces_.back().text += text;
}

void TemplateWriter::Quoted(std::string_view text) {
  Control("<|\"|>");
  Text(text);
  Control("<|\"|>");
}

void TemplateWriter::Fail(std::string path, std::string_view problem) {
  if (error_) return;
  error_ = Error{fmt::format("{} {}", path, problem), path, "invalid_value"};
}

std::string TemplateWriter::NeedString(Value value, const std::string& path) {
  if (!jinja::IsString(value)) Fail(path, "must be a string");
  return Print(value);
}

void TemplateWriter::Comma(bool& comma) {
  if (comma) Text(",");
  comma = true;
}

void TemplateWriter::List(Value items) {
  Text("[");
  bool comma = false;
  if (IsArray(items)) {
    for (const json::value& item : items->get_array()) {
      Comma(comma);
      Quoted(Print(&item));
    }
  } else if (items != nullptr) {
    Fail(path_, "has a \"required\" that is not a list");
  }
  Text("]");
}

void TemplateWriter::Argument(Value value, bool escape_keys) {
  if (value == nullptr) return Text("[]");  // undefined counts as an empty sequence
  if (value->is_string()) return Quoted(Print(value));
  if (value->is_bool()) return Text(value->get_bool() ? "true" : "false");
  bool comma = false;
  if (value->is_object()) {
    Text("{");
    for (const auto* member : jinja::Sorted(value->get_object())) {
      Comma(comma);
      if (escape_keys)
        Quoted(Key(*member));
      else
        Text(Key(*member));
      Text(":");
      Argument(&member->value(), escape_keys);
    }
    return Text("}");
  }
  if (value->is_array()) {
    Text("[");
    for (const json::value& item : value->get_array()) {
      Comma(comma);
      Argument(&item, escape_keys);
    }
    return Text("]");
  }
  Text(value->is_null() && !april_ ? "null" : Print(value));
}

void TemplateWriter::Pairs(const json::object& object) {
  bool comma = false;
  for (const auto* member : jinja::Sorted(object)) {
    Comma(comma);
    Text(Key(*member));
    Text(":");
    Argument(&member->value(), false);
  }
}

void TemplateWriter::ToolResponse(const std::string& name, Value response) {
  Control("<|tool_response>");
  Text("response:" + name + "{");
  if (IsObject(response)) {
    Pairs(response->get_object());
  } else {
    Text("value:");
    Argument(response, false);
  }
  Text("}");
  Control("<tool_response|>");
}

void TemplateWriter::Items(const json::object& items) {
  bool comma = false;
  for (const auto* member : jinja::Sorted(items)) {
    const std::string_view key = Key(*member);
    const json::value& value = member->value();
    if (value.is_null()) continue;
    Comma(comma);
    if (key == "properties") {
      Text("properties:{");
      if (value.is_object()) Parameters(&value, false);
      Text("}");
    } else if (key == "required") {
      Text("required:");
      List(&value);
    } else if (key == "type") {
      Text("type:");
      if (value.is_string())
        Quoted(Upper(Print(&value)));
      else if (!value.is_array())
        Fail(path_, "has a type that is neither a string nor a list");
      else {
        json::array upper;
        for (const json::value& item : value.get_array())
          upper.push_back(json::value(Upper(Print(&item))));
        const json::value list(upper);
        Argument(&list, true);
      }
    } else {
      Text(key);
      Text(":");
      Argument(&value, true);
    }
  }
}

void TemplateWriter::ObjectSchema(const json::value& value, bool& comma) {
  const Value properties = Get(&value, "properties");
  Comma(comma);
  Text("properties:{");
  if (IsObject(properties))
    Parameters(properties, false);
  else
    Parameters(&value, true);
  Text("}");
  if (!IsTrue(Get(&value, "required"))) return;
  Comma(comma);
  Text("required:");
  List(Get(&value, "required"));
}

void TemplateWriter::Parameter(const json::value& value) {
  bool comma = false;
  const std::string type = Upper(Print(Get(&value, "type")));
  if (IsTrue(Get(&value, "description"))) {
    Text("description:");
    Quoted(Print(Get(&value, "description")));
    comma = true;
  }
  if (april_) {
    if (IsTrue(Get(&value, "nullable"))) {
      Comma(comma);
      Text("nullable:true");
    }
  }
  // April writes a comma before items and properties even where nothing stands in front of it, and
  // they do not count when it writes the type's comma.
  const bool comma_before = comma;
  const bool has_items =
      type == "ARRAY" && IsObject(Get(&value, "items")) && IsTrue(Get(&value, "items"));
  const bool nested = has_items || type == "OBJECT";
  if (april_ && nested) comma = true;
  if (type == "STRING" && IsTrue(Get(&value, "enum"))) {
    Comma(comma);
    Text("enum:");
    Argument(Get(&value, "enum"), true);
  } else if (has_items) {
    Comma(comma);
    Text("items:{");
    Items(Get(&value, "items")->get_object());
    Text("}");
  }
  if (!april_ && IsTrue(Get(&value, "nullable"))) {
    Comma(comma);
    Text("nullable:true");
  }
  if (type == "OBJECT") ObjectSchema(value, comma);
  if (april_ && nested) comma = comma_before;
  Comma(comma);
  Text("type:");
  Quoted(type);
}

void TemplateWriter::Parameters(Value properties, bool filter_keys) {
  if (!IsObject(properties)) return Fail(path_, "has properties that are not an object");
  bool comma = false;
  for (const auto* member : jinja::Sorted(properties->get_object())) {
    if ((filter_keys || april_) && IsStandardKey(Key(*member))) continue;
    Comma(comma);
    Text(Key(*member));
    Text(":{");
    Parameter(member->value());
    Text("}");
  }
}

void TemplateWriter::Declaration(const json::value& tool, const std::string& path) {
  path_ = path;
  const Value function = Get(&tool, "function");
  if (!IsObject(function)) return Fail(path + ".function", "must be an object");
  Text("declaration:" + Print(Get(function, "name")) + "{description:");
  Quoted(Print(Get(function, "description")));
  const Value params = Get(function, "parameters");
  if (IsTrue(params)) {
    Text(",parameters:{");
    if (IsTrue(Get(params, "properties"))) {
      Text("properties:{");
      Parameters(Get(params, "properties"), false);
      Text("},");
    }
    if (IsTrue(Get(params, "required"))) {
      Text("required:");
      List(Get(params, "required"));
      Text(",");
    }
    if (IsTrue(Get(params, "type"))) {
      Text("type:");
      Quoted(Upper(Print(Get(params, "type"))));
      Text("}");
    }
  }
  if (const Value response = Get(function, "response")) {
    Text(",response:{");
    if (IsTrue(Get(response, "description"))) {
      Text("description:");
      Quoted(Print(Get(response, "description")));
      Text(",");
    }
    if (Upper(Print(Get(response, "type"))) == "OBJECT") {
      Text("type:");
      Quoted("OBJECT");
      Text("}");
    }
  }
  Text("}");
}

}  // namespace lapidary
