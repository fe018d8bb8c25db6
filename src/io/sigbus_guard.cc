#include "io/sigbus_guard.h"

#include <setjmp.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <mutex>

#include "base/check.h"

namespace lapidary {
namespace {

struct ActiveGuard {
  std::span<const std::byte> range;
  sigjmp_buf jump;
};

// Plain data, so that the handler may read it.
thread_local ActiveGuard* active_guard = nullptr;

// begin is written last and cleared first: the handler, which cannot take a lock, sees a slot whole
// or empty.
struct Slot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::array<char, 512> file{};
};

constexpr int kNumSlots = 2048;
std::array<Slot, kNumSlots> slots;
std::mutex slots_mutex;
std::atomic<WeightFaultHook> fault_hook{nullptr};

void WriteText(const char* text) {
  if (write(STDERR_FILENO, text, std::strlen(text)) < 0) return;  // nobody left to tell
}

void OnSigbus(int, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  if (ActiveGuard* guard = active_guard; guard != nullptr) {
    const auto begin = reinterpret_cast<uintptr_t>(guard->range.data());
    if (address >= begin && address < begin + guard->range.size()) siglongjmp(guard->jump, 1);
  }
  for (const Slot& slot : slots) {
    const uintptr_t begin = slot.begin.load(std::memory_order_acquire);
    if (begin == 0 || address < begin || address >= slot.end.load(std::memory_order_relaxed))
      continue;
    WriteText("lapidary: the weights file ");
    WriteText(slot.file.data());
    WriteText(" could not be read: it was truncated or its disk failed; stopping\n");
    if (WeightFaultHook hook = fault_hook.load(); hook != nullptr) hook(slot.file.data());
    _exit(kExitDevice);
  }
  // Not ours: the default action, by the same instruction again.
  signal(SIGBUS, SIG_DFL);
}

void InstallHandler() {
  static const bool installed = [] {
    struct sigaction action{};
    action.sa_sigaction = OnSigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, nullptr) == 0;
  }();
  (void)installed;
}

}  // namespace

bool ReadGuarded(std::span<const std::byte> range, void (*body)(void* context), void* context) {
  InstallHandler();
  ActiveGuard guard;
  guard.range = range;
  ActiveGuard* const outer = active_guard;
  // The signal mask is restored too: the jump leaves the handler, where SIGBUS is blocked.
  if (sigsetjmp(guard.jump, 1) != 0) {
    active_guard = outer;
    return false;
  }
  active_guard = &guard;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  body(context);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  active_guard = outer;
  return true;
}

WeightMapMark::WeightMapMark(std::span<const std::byte> range, const std::string& file)
    : slot_(-1) {
  InstallHandler();
  if (range.empty()) return;
  const std::lock_guard lock(slots_mutex);
  for (int i = 0; i < kNumSlots; ++i) {
    Slot& slot = slots[static_cast<size_t>(i)];
    if (slot.begin.load() != 0) continue;
    const size_t length = std::min(file.size(), slot.file.size() - 1);
    std::memcpy(slot.file.data(), file.data(), length);
    slot.file[length] = '\0';
    const auto begin = reinterpret_cast<uintptr_t>(range.data());
    slot.end.store(begin + range.size(), std::memory_order_relaxed);
    slot.begin.store(begin, std::memory_order_release);
    slot_ = i;
    return;
  }
}

WeightMapMark::~WeightMapMark() {
  if (slot_ < 0) return;
  const std::lock_guard lock(slots_mutex);
  slots[static_cast<size_t>(slot_)].begin.store(0);
}

void SetWeightFaultHook(WeightFaultHook hook) { fault_hook.store(hook); }

}  // namespace lapidary
