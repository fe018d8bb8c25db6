// SIGBUS and mapped files: a page of a map whose file was cut short, or whose disk failed, raises
// SIGBUS when read. While loading such a read becomes an Error; later it is a fail-stop that names
// the file (RELIABILITY.md S4).
#ifndef LAPIDARY_IO_SIGBUS_GUARD_H_
#define LAPIDARY_IO_SIGBUS_GUARD_H_

#include <cstddef>
#include <span>
#include <string>

namespace lapidary {

// Runs body(context), which reads `range`, in this thread. False: a read inside `range` raised
// SIGBUS and body was left in the middle. So body must own nothing: no destructors, no locks, no
// allocation.
bool ReadGuarded(std::span<const std::byte> range, void (*body)(void* context), void* context);

template <typename Body>
bool ReadGuarded(std::span<const std::byte> range, Body& body) {
  return ReadGuarded(range, [](void* context) { (*static_cast<Body*>(context))(); }, &body);
}

// Marks a range as weights for as long as it lives: SIGBUS inside it, in any thread outside
// ReadGuarded, prints the file's name to stderr and ends the process with kExitDevice.
class WeightMapMark {
 public:
  WeightMapMark(std::span<const std::byte> range, const std::string& file);
  WeightMapMark(WeightMapMark&& other) noexcept : slot_(other.slot_) { other.slot_ = -1; }
  WeightMapMark& operator=(WeightMapMark&&) = delete;
  ~WeightMapMark();

 private:
  int slot_;  // -1: none, when moved from or when all slots are taken
};

// Called in the signal handler before the process ends, so that the server's fail-stop can tell its
// clients. It must be async-signal-safe.
using WeightFaultHook = void (*)(const char* file);
void SetWeightFaultHook(WeightFaultHook hook);

}  // namespace lapidary

#endif  // LAPIDARY_IO_SIGBUS_GUARD_H_
