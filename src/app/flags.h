// The flag spellings of vLLM and SGLang that no option of ours has: ignored, held to the values
// that are built, or refused by name.
#ifndef LAPIDARY_APP_FLAGS_H_
#define LAPIDARY_APP_FLAGS_H_

#include <set>
#include <string>
#include <vector>

#include "base/result.h"

namespace lapidary {

// The arguments as the parser of the subcommand argv[1] may see them, argv[0] included.
// `known_flags` are that subcommand's own spellings with their dashes; they win over the table.
// The ignored ones are said in one line on stderr. The error names the flag, and for an unknown
// one the nearest spelling.
Result<std::vector<std::string>> PrepareArguments(int argc, char** argv,
                                                  const std::set<std::string>& known_flags);

// The known spelling with the fewest letters changed.
std::string NearestSpelling(const std::string& given, const std::set<std::string>& known);

}  // namespace lapidary

#endif  // LAPIDARY_APP_FLAGS_H_
