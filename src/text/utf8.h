// UTF-8: bytes to valid text, at once or piece by piece. What is not UTF-8 becomes U+FFFD, one for
// each maximal subpart (Unicode 15, table 3-8).
#ifndef LAPIDARY_TEXT_UTF8_H_
#define LAPIDARY_TEXT_UTF8_H_

#include <string>
#include <string_view>

namespace lapidary {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// Assembles valid UTF-8 from bytes that arrive in pieces. What it returns, joined, does not depend
// on the cuts.
class Utf8Assembler {
 public:
  // The text that is certain after these bytes; an unfinished character is held back (at most 3
  // bytes).
  std::string Push(std::string_view bytes);
  // The rest: a character that was never finished becomes U+FFFD.
  std::string Finish();

 private:
  std::string pending_;
};

std::string ToValidUtf8(std::string_view bytes);
// Bytes of the character that starts at text[0]; the text is valid UTF-8.
size_t CharacterBytes(std::string_view text);

}  // namespace lapidary

#endif  // LAPIDARY_TEXT_UTF8_H_
