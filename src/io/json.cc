#include "io/json.h"

#include <boost/json/stream_parser.hpp>

namespace lapidary {

Result<json::value> ParseJson(std::string_view text, std::string_view what) {
  json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  boost::system::error_code code;
  json::stream_parser parser({}, options);
  const size_t consumed = parser.write_some(text.data(), text.size(), code);
  if (!code && consumed < text.size() &&
      text.find_first_not_of(" \t\r\n", consumed) != std::string_view::npos)
    code = json::error::extra_data;
  if (!code && !parser.done()) parser.finish(code);
  if (code)
    return Error{
        fmt::format("{} is not valid JSON near byte {}: {}", what, consumed, code.message()), "",
        "invalid_json"};
  return parser.release();
}

}  // namespace lapidary
