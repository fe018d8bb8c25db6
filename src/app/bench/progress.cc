#include "app/bench/progress.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace lapidary {
namespace {

constexpr int kBarCells = 20;
constexpr std::chrono::milliseconds kOnTerminal{200}, kElsewhere{10'000};

}  // namespace

ProgressLine::ProgressLine(std::string label, size_t num_requests, const char* unit)
    : label_(std::move(label)),
      num_requests_(num_requests),
      unit_(unit),
      on_terminal_(isatty(STDERR_FILENO) != 0) {}

ProgressLine::~ProgressLine() {
  if (on_terminal_) fmt::print(stderr, "\r\033[K");
}

void ProgressLine::Show(size_t num_done, int64_t num_units) {
  const Clock::time_point now = Clock::now();
  if (now - shown_ < (on_terminal_ ? kOnTerminal : kElsewhere)) return;
  shown_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const auto cells = static_cast<size_t>(kBarCells) * num_done / std::max<size_t>(num_requests_, 1);
  fmt::print(stderr, "{}{}  [{:<{}}]  {}/{} requests   {} {}   {:.1f} a second   {:.0f} s{}",
             on_terminal_ ? "\r" : "", label_, std::string(cells, '#'), kBarCells, num_done,
             num_requests_, num_units, unit_, static_cast<double>(num_units) / seconds, seconds,
             on_terminal_ ? "\033[K" : "\n");
}

}  // namespace lapidary
