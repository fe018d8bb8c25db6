// JSON of a model's files, whose numbers decide what is read where.
#ifndef LAPIDARY_IO_FILE_JSON_H_
#define LAPIDARY_IO_FILE_JSON_H_

#include <string_view>

#include "base/result.h"
#include "io/json.h"

namespace lapidary {

// ParseJson, and refuses by name a key that any object holds twice: a file with two answers is
// damaged or made to be read in two ways.
Result<json::value> ParseFileJson(std::string_view text, std::string_view what);

}  // namespace lapidary

#endif  // LAPIDARY_IO_FILE_JSON_H_
