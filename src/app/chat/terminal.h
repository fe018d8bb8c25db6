// Terminal: a person's lines in, a reply's pieces out, Ctrl-C as an event. Without a terminal at
// both ends it is plain text without a prompt and without escape sequences.
#ifndef LAPIDARY_APP_CHAT_TERMINAL_H_
#define LAPIDARY_APP_CHAT_TERMINAL_H_

#include <atomic>
#include <optional>
#include <string>
#include <string_view>

namespace lapidary {

// At most one at a time: it takes SIGINT over while it lives.
class Terminal {
 public:
  Terminal();
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  bool is_interactive() const { return is_interactive_; }
  // The next line, shown a prompt. Nothing at the end of the input or on Ctrl-C.
  std::optional<std::string> ReadLine();
  // Whether Ctrl-C was pressed since it was last asked.
  bool TakeInterrupt();

  // A piece of the reply. A thought is dim; without a terminal it stands between two lines of its
  // own. Control characters of the text are left out: a reply must not steer the terminal.
  void Thought(std::string_view text);
  void Answer(std::string_view text);
  void EndReply();

 private:
  enum class Part { kNone, kThought, kAnswer };
  void Enter(Part part);

  bool is_interactive_;
  int interrupts_;  // eventfd
  Part part_ = Part::kNone;
  std::string unread_;
  bool at_end_ = false;
};

}  // namespace lapidary

#endif  // LAPIDARY_APP_CHAT_TERMINAL_H_
