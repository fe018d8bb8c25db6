// JSON over Boost.JSON: bounded parsing, and accessors that name the field in their error.
#ifndef LAPIDARY_IO_JSON_H_
#define LAPIDARY_IO_JSON_H_

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/string.hpp>
#include <boost/json/value.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace lapidary {

namespace json = boost::json;

inline constexpr size_t kMaxJsonDepth = 64;

// Parses one JSON document (no trailing text, depth <= 64, valid UTF-8). Object key order is kept.
// `what` names the source in the error ("config.json", "body").
Result<json::value> ParseJson(std::string_view text, std::string_view what);

}  // namespace lapidary

#endif  // LAPIDARY_IO_JSON_H_
