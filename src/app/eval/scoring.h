// When an answer counts as right, and what a share of right answers says.
#ifndef LAPIDARY_APP_EVAL_SCORING_H_
#define LAPIDARY_APP_EVAL_SCORING_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "io/json.h"

namespace lapidary {

// kExact: the content, without white space around it. kContains: the content holds the text. kJson:
// the content is this JSON. kToolCall: the first call has this name and these arguments. The order
// of an object's keys never counts.
enum class Match : uint8_t { kExact, kContains, kJson, kToolCall };

struct Expectation {
  Match match = Match::kExact;
  std::string text;   // kExact, kContains
  json::value value;  // kJson; kToolCall: {"name", "arguments"}
};

struct FirstCall {
  std::string name, arguments;
};

struct Answer {
  std::string content;
  std::optional<FirstCall> call;
};

struct Score {
  int right = 0, total = 0;
};

std::string_view Trim(std::string_view text);
bool IsRight(const Expectation& expected, const Answer& answer);
// Wilson's 95 % interval of the share of right answers.
std::pair<double, double> Wilson(const Score& score);

}  // namespace lapidary

#endif  // LAPIDARY_APP_EVAL_SCORING_H_
