// Values of checked fields: the table has seen their types and ranges, so these cannot fail.
#ifndef LAPIDARY_SERVER_OPENAI_FIELD_VALUES_H_
#define LAPIDARY_SERVER_OPENAI_FIELD_VALUES_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace lapidary {

inline double NumberOf(const json::object& fields, std::string_view name, double unset) {
  const json::value* value = fields.if_contains(name);
  return value == nullptr ? unset : value->to_number<double>();
}
inline int IntOf(const json::object& fields, std::string_view name, int unset) {
  return static_cast<int>(NumberOf(fields, name, unset));
}
inline bool BoolOf(const json::object& fields, std::string_view name, bool unset) {
  const json::value* value = fields.if_contains(name);
  return value == nullptr ? unset : value->get_bool();
}
inline std::string StringOf(const json::value& value) { return std::string(value.get_string()); }

inline std::vector<int32_t> IdsOf(const json::value* value) {
  std::vector<int32_t> ids;
  if (value != nullptr)
    for (const json::value& item : value->get_array())
      ids.push_back(static_cast<int32_t>(item.get_int64()));
  return ids;
}

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_OPENAI_FIELD_VALUES_H_
