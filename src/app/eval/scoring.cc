#include "app/eval/scoring.h"

#include <algorithm>
#include <cmath>

namespace lapidary {
namespace {

// Boost.JSON's equality of objects does not look at the order of keys.
bool SameJson(const std::string& text, const json::value& expected) {
  const auto parsed = ParseJson(text, "reply");
  return parsed.ok() && parsed.value() == expected;
}

}  // namespace

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

bool IsRight(const Expectation& expected, const Answer& answer) {
  switch (expected.match) {
    case Match::kExact:
      return Trim(answer.content) == Trim(expected.text);
    case Match::kContains:
      return answer.content.find(expected.text) != std::string::npos;
    case Match::kJson:
      return SameJson(answer.content, expected.value);
    case Match::kToolCall:
      break;
  }
  return answer.call && expected.value.at("name") == json::value(answer.call->name) &&
         SameJson(answer.call->arguments, expected.value.at("arguments"));
}

std::pair<double, double> Wilson(const Score& score) {
  if (score.total == 0) return {0.0, 1.0};
  constexpr double kZ = 1.959963984540054;
  const double n = score.total, share = score.right / n;
  const double centre = share + kZ * kZ / (2 * n);
  const double half = kZ * std::sqrt(share * (1 - share) / n + kZ * kZ / (4 * n * n));
  const double scale = 1 + kZ * kZ / n;
  return {std::max(0.0, (centre - half) / scale), std::min(1.0, (centre + half) / scale)};
}

}  // namespace lapidary
