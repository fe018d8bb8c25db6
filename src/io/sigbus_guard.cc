#include "io/sigbus_guard.h"

#include <setjmp.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <mutex>

#include "base/check.h"

namespace lapidary {
namespace {

constexpr size_t kMaxMaps = 8192;
constexpr size_t kMaxShownPath = 400;

// Read by the signal handler: fixed storage, written before `size` becomes non-zero.
struct WeightMap {
  std::atomic<const std::byte*> begin{nullptr};
  std::atomic<size_t> size{0};
  char path[kMaxShownPath] = {};
};

std::array<WeightMap, kMaxMaps> maps;
std::mutex maps_mutex;

thread_local sigjmp_buf guard_return;
thread_local volatile bool guard_armed = false;
thread_local const std::byte* volatile guard_begin = nullptr;
thread_local volatile size_t guard_size = 0;

void WriteAll(const char* text) {
  [[maybe_unused]] const ssize_t n = write(STDERR_FILENO, text, std::strlen(text));
}

void OnSigbus(int number, siginfo_t* info, void*) {
  const auto* address = static_cast<const std::byte*>(info->si_addr);
  if (guard_armed &&
      (guard_size == 0 || (address >= guard_begin && address < guard_begin + guard_size))) {
    guard_armed = false;
    siglongjmp(guard_return, 1);
  }
  for (const WeightMap& map : maps) {
    const size_t size = map.size.load(std::memory_order_acquire);
    const std::byte* begin = map.begin.load(std::memory_order_relaxed);
    if (size == 0 || address < begin || address >= begin + size) continue;
    WriteAll("lapidary: the weight file ");
    WriteAll(map.path);
    WriteAll(" became shorter while it was served; stopping\n");
    _exit(71);
  }
  // Not ours: the default action, at this very instruction.
  signal(number, SIG_DFL);
}

void Install() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action{};
    action.sa_sigaction = OnSigbus;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    CHECK(sigaction(SIGBUS, &action, nullptr) == 0);
  });
}

}  // namespace

bool WithSigbusGuard(std::span<const std::byte> map, const std::function<void()>& body) {
  Install();
  guard_begin = map.data();
  guard_size = map.size();
  if (sigsetjmp(guard_return, 1) != 0) return false;
  guard_armed = true;
  body();
  guard_armed = false;
  return true;
}

void RegisterWeightMap(std::span<const std::byte> map, const std::string& path) {
  Install();
  if (map.empty()) return;
  std::lock_guard lock(maps_mutex);
  for (WeightMap& slot : maps) {
    if (slot.size.load() != 0) continue;
    std::strncpy(slot.path, path.c_str(), kMaxShownPath - 1);
    slot.begin.store(map.data(), std::memory_order_relaxed);
    slot.size.store(map.size(), std::memory_order_release);
    return;
  }
  CHECK(false, "more than {} weight maps", kMaxMaps);
}

void UnregisterWeightMap(std::span<const std::byte> map) {
  std::lock_guard lock(maps_mutex);
  for (WeightMap& slot : maps)
    if (slot.size.load() != 0 && slot.begin.load() == map.data())
      slot.size.store(0, std::memory_order_release);
}

}  // namespace lapidary
