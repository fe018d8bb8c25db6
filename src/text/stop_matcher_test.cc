#include "text/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/support/rounds.h"

namespace lapidary {
namespace {

struct Expected {
  std::string text;
  bool matched = false;
};

// The definition: the stop string whose end comes first; of those that end together the longest.
Expected Slow(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops)
      if (!stop.empty() && stop.size() <= end &&
          text.compare(end - stop.size(), stop.size(), stop) == 0)
        longest = std::max(longest, stop.size());
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopMatcher, EqualsTheDefinitionHoweverTheTextIsCut) {
  std::mt19937 rng(5);
  const auto random_text = [&](size_t max) {
    std::string text(rng() % (max + 1), 'a');
    for (char& c : text) c = static_cast<char>('a' + rng() % 3);
    return text;
  };
  const int num_rounds = Rounds(20'000);
  for (int round = 0; round < num_rounds; ++round) {
    std::vector<std::string> stops(rng() % 4);
    for (std::string& stop : stops) stop = random_text(5);
    const std::string text = random_text(30);
    StopMatcher matcher(stops);
    std::string got;
    bool matched = false;
    for (size_t at = 0; at < text.size();) {
      const size_t count = std::min<size_t>(1 + rng() % 4, text.size() - at);
      const StopMatcher::Output output = matcher.Push(text.substr(at, count));
      at += count;
      got += output.text;
      matched = matched || output.matched.has_value();
      // No more is held than could still become a stop string.
      if (!matched) {
        size_t live = 0;
        for (const std::string& stop : stops)
          for (size_t n = 1; n < stop.size() && n <= at; ++n)
            if (text.compare(at - n, n, stop, 0, n) == 0) live = std::max(live, n);
        ASSERT_EQ(got.size() + live, at);
      }
    }
    if (!matched) got += matcher.Finish();
    const Expected expected = Slow(stops, text);
    ASSERT_EQ(got, expected.text);
    ASSERT_EQ(matched, expected.matched);
  }
}

TEST(StopMatcher, KeepsTheStopStringWhenAsked) {
  StopMatcher matcher({"END"}, true);
  EXPECT_EQ(matcher.Push("a E").text, "a ");
  const StopMatcher::Output output = matcher.Push("ND more");
  EXPECT_EQ(output.text, "END");
  EXPECT_EQ(output.matched, 0u);
  EXPECT_EQ(matcher.Push("x").text, "");
}

}  // namespace
}  // namespace lapidary
