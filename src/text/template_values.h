// How the template language sees JSON values: printing, truth, trimming and sorting as in Jinja.
#ifndef LAPIDARY_TEXT_TEMPLATE_VALUES_H_
#define LAPIDARY_TEXT_TEMPLATE_VALUES_H_

#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace lapidary::jinja {

// A null pointer is Jinja's undefined.
using Value = const json::value*;

// value[key]; undefined if value is not an object or has no such key.
Value Get(Value value, std::string_view key);
bool IsTrue(Value value);
bool IsString(Value value);
bool IsObject(Value value);
bool IsArray(Value value);
bool IsNone(Value value);  // null, not undefined
bool Equals(Value value, std::string_view text);

std::string Print(Value value);  // {{ value }}
std::string Repr(const json::value& value);
std::string Upper(std::string text);  // ASCII letters
std::string_view Trim(std::string_view text);
// Members sorted by key, letter case ignored.
std::vector<const json::key_value_pair*> Sorted(const json::object& object);

}  // namespace lapidary::jinja

#endif  // LAPIDARY_TEXT_TEMPLATE_VALUES_H_
