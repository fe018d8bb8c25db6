// StopMatcher: finds stop strings in text that arrives in pieces (Aho-Corasick on bytes). Holds
// back no more than the longest end of the text that could still become a stop string.
#ifndef LAPIDARY_TEXT_STOP_MATCHER_H_
#define LAPIDARY_TEXT_STOP_MATCHER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lapidary {

class StopMatcher {
 public:
  // Empty strings are left out. keep_stop: the matched string stays in the text.
  explicit StopMatcher(const std::vector<std::string>& stops, bool keep_stop = false);

  struct Output {
    std::string text;               // safe to send
    std::optional<size_t> matched;  // index of the stop string that ended the text
  };
  // After a match everything else is dropped.
  Output Push(std::string_view text);
  // The end without a match: what was held back.
  std::string Finish();

 private:
  struct Node {
    std::map<char, int32_t> next;
    int32_t fail = 0, depth = 0;
    std::optional<size_t> stop;  // the longest stop string that ends here
  };
  int32_t Step(int32_t node, char byte) const;

  std::vector<Node> nodes_;
  std::vector<size_t> lengths_;
  bool keep_stop_;
  int32_t state_ = 0;
  bool done_ = false;
  std::string held_;
};

}  // namespace lapidary

#endif  // LAPIDARY_TEXT_STOP_MATCHER_H_
