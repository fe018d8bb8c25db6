// The field table: every request field of the OpenAI endpoints, its type, range and endpoints. The
// validator and the hostile-value test are made from it.
#ifndef LAPIDARY_SERVER_OPENAI_SCHEMA_H_
#define LAPIDARY_SERVER_OPENAI_SCHEMA_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "io/json.h"

namespace lapidary {

enum class FieldType : uint8_t {
  kBool,
  kInt,
  kNumber,
  kString,
  kStops,    // a string or a list of strings
  kIds,      // a list of token ids
  kStrings,  // a list of strings
  kBias,     // an object: id -> number
  kObject,
  kArray,
  kPrompt,   // string, strings, ids, lists of ids
  kAny,      // accepted, unused
  kUnbuilt,  // known, not supported: 400
};

inline constexpr unsigned kChat = 1, kCompletions = 2, kTokenize = 4, kDetokenize = 8;
inline constexpr unsigned kNative = 16, kSamplingParams = 32;  // /generate, and inside its object
inline constexpr unsigned kGenerating = kChat | kCompletions;
inline constexpr unsigned kSampling = kGenerating | kSamplingParams;

struct Field {  // NOLINT(clang-analyzer-optin.performance.Padding): as its rows read
  std::string_view name;
  FieldType type;
  unsigned endpoints;
  double lo = 0, hi = 0;          // of the number, the ids' count or the strings' count
  std::string_view alias = {};    // another spelling of `name`
  bool above_lo = false;          // lo itself is refused
  bool harmless_default = false;  // kUnbuilt: false, 0, 1, "auto" or an empty list pass
};

// Upper bounds that depend on the model are written as these in `hi`.
inline constexpr double kVocab = -7, kContext = -8;

struct FieldLimits {
  int vocab_size = 0, max_model_len = 0;
};

struct CheckedFields {
  json::object values;               // canonical names; null and aliases resolved
  std::vector<std::string> unknown;  // ignored
};

std::span<const Field> FieldTable();

// The first field that is wrong is named in the error's param.
Result<CheckedFields> CheckFields(const json::object& body, unsigned endpoint,
                                  const FieldLimits& limits);

}  // namespace lapidary

#endif  // LAPIDARY_SERVER_OPENAI_SCHEMA_H_
