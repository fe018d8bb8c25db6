// CallReader: the model's call format to a name and JSON arguments, piece by piece.
#ifndef LAPIDARY_TEXT_CALL_READER_H_
#define LAPIDARY_TEXT_CALL_READER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "io/json.h"

namespace lapidary {

inline constexpr int kMaxCallDepth = 64;
// Stands for a quote token in a call's text; no byte of UTF-8.
inline constexpr char kQuoteMark = '\xff';

// Reads `call:NAME{...}`. JSON is given as soon as no later text can change it: strings in pieces,
// numbers and words when they have ended, a key with the beginning of its value. A call begins with
// its first value, or with its end: what breaks before that is no call. Later it is closed where it
// breaks, so that the pieces are a JSON object, in the model's order and digits, whatever comes.
class CallReader {
 public:
  // Schemas of the declared functions' parameters; outlives this.
  explicit CallReader(const std::unordered_map<std::string, json::object>& parameters)
      : parameters_(&parameters) {}

  // `text` is valid UTF-8 but for the quote marks. Returns how many bytes it read: fewer than all
  // once the call is over or broken.
  size_t Push(std::string_view text);
  // The text ends: before the call's end said, so that it is broken, or anywhere, so that what was
  // begun is closed and a bare value that might go on is left out.
  void End(bool is_cut);

  bool has_begun() const { return has_begun_; }
  bool is_over() const { return place_ == Place::kOver; }
  bool is_broken() const { return place_ == Place::kBroken; }
  const std::string& name() const { return name_; }
  // What came since the last time.
  std::string TakeJson() { return has_begun_ ? std::exchange(json_, {}) : std::string(); }
  // Of a broken call, what it had read of the text that is in no JSON.
  std::string TakeUnread() { return std::exchange(unread_, {}); }

 private:
  enum class Place : uint8_t {
    kHead,
    kMember,  // a key, or the object's end
    kBareKey,
    kQuotedKey,
    kColon,
    kItem,  // a value, or the list's end
    kValue,
    kBare,
    kString,
    kNext,  // a comma or the end
    kOver,
    kBroken
  };
  struct Frame {
    char close;
    const json::object* schema;  // of its members by name, or of each item; may be null
    bool is_first = true;
  };

  // What ends the word at this place; empty: no word is read here.
  std::string_view WordEnds() const;
  // Both return whether the byte was read.
  bool EndWord(char end);
  bool Take(char c);

  bool EndHead(std::string_view head);
  void EndKey(std::string_view key);
  void EndBare(std::string_view word);
  void BeginValue();
  bool Open(char first);
  void Close();
  void CloseAll(Place last);

  const std::unordered_map<std::string, json::object>* parameters_;
  Place place_ = Place::kHead;
  std::vector<Frame> frames_;
  const json::object* schema_ = nullptr;  // of the next value
  std::string name_, json_, unread_;
  std::string word_;  // of the head, a key or a bare value so far
  std::string key_;   // as JSON with its colon, until its value begins
  bool has_begun_ = false, wrote_ = false;
};

}  // namespace lapidary

#endif  // LAPIDARY_TEXT_CALL_READER_H_
