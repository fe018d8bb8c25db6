#include "app/chat/terminal.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>

#include "base/check.h"

namespace lapidary {
namespace {

constexpr size_t kMaxTypedBytes = size_t{1} << 20;

std::atomic<int> interrupt_fd{-1};

// The handler may run on any thread; what waits polls the descriptor.
void OnInterrupt(int) {
  const int saved = errno;
  const uint64_t one = 1;
  if (write(interrupt_fd, &one, sizeof one) < 0) {
  }
  errno = saved;
}

void Print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// Valid UTF-8 in, the same without C0 and C1 control characters but newline and tab.
std::string Printable(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool is_c1 =
        byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (is_c1) ++i;
    if (is_c1 || (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F) continue;
    out += text[i];
  }
  return out;
}

}  // namespace

Terminal::Terminal()
    : is_interactive_(isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0),
      interrupts_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  CHECK(interrupts_ >= 0, "eventfd: errno {}", errno);
  interrupt_fd = interrupts_;
  signal(SIGINT, OnInterrupt);
}

Terminal::~Terminal() {
  signal(SIGINT, SIG_DFL);
  close(interrupts_);
}

bool Terminal::TakeInterrupt() {
  uint64_t count = 0;
  return read(interrupts_, &count, sizeof count) == sizeof count;
}

std::optional<std::string> Terminal::ReadLine() {
  if (is_interactive_) {
    TakeInterrupt();  // one meant for the reply that has just ended
    Print("> ");
  }
  while (true) {
    const size_t end = unread_.find('\n');
    if (end != std::string::npos || (at_end_ && !unread_.empty())) {
      std::string line = unread_.substr(0, end);
      unread_.erase(0, end == std::string::npos ? end : end + 1);
      if (line.ends_with('\r')) line.pop_back();
      return line;
    }
    pollfd sources[2] = {{STDIN_FILENO, POLLIN, 0}, {interrupts_, POLLIN, 0}};
    if (!at_end_ && poll(sources, 2, -1) < 0 && errno != EINTR) at_end_ = true;
    if (at_end_ || TakeInterrupt()) {
      if (is_interactive_) Print("\n");
      return std::nullopt;
    }
    if ((sources[0].revents & (POLLIN | POLLHUP | POLLERR | POLLNVAL)) == 0) continue;
    char bytes[4096];
    const ssize_t got = read(STDIN_FILENO, bytes, sizeof bytes);
    if (got > 0) unread_.append(bytes, static_cast<size_t>(got));
    if (got == 0 || (got < 0 && errno != EINTR) || unread_.size() > kMaxTypedBytes) at_end_ = true;
  }
}

void Terminal::Enter(Part part) {
  if (part == part_) return;
  if (part_ == Part::kThought) Print(is_interactive_ ? "\033[0m\n" : "\n[/thought]\n");
  if (part == Part::kThought) Print(is_interactive_ ? "\033[2m" : "[thought]\n");
  if (part == Part::kNone && part_ == Part::kAnswer) Print("\n");
  part_ = part;
}

void Terminal::Thought(std::string_view text) {
  Enter(Part::kThought);
  Print(Printable(text));
}

void Terminal::Answer(std::string_view text) {
  Enter(Part::kAnswer);
  Print(Printable(text));
}

void Terminal::EndReply() { Enter(Part::kNone); }

}  // namespace lapidary
