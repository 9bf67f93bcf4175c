#include "os/fault_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

namespace leat::os {
namespace {

struct Range {
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};
};
// A signal handler can look at nothing else than what is always there. What finds no place is not
// guarded.
std::array<Range, 8192> g_ranges;
std::mutex g_mutex;

void OnSigbus(int sig, siginfo_t* info, void*) {
  const auto at = reinterpret_cast<std::uintptr_t>(info->si_addr);
  for (const Range& range : g_ranges) {
    const std::uintptr_t begin = range.begin.load(std::memory_order_acquire);
    if (begin == 0 || at < begin || at >= range.end.load(std::memory_order_acquire)) continue;
    const auto page = static_cast<std::uintptr_t>(4096);
    void* const where = reinterpret_cast<void*>(at / page * page);
    if (::mmap(where, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
               0) == where)
      return;
  }
  ::signal(sig, SIG_DFL);  // returning meets the fault again
}

}  // namespace

void GuardMapping(const void* begin, std::size_t size) {
  const std::lock_guard lock(g_mutex);
  static const bool installed = [] {
    struct sigaction action = {};
    action.sa_sigaction = OnSigbus;
    action.sa_flags = SA_SIGINFO;
    return ::sigaction(SIGBUS, &action, nullptr) == 0;
  }();
  if (!installed) return;
  for (Range& range : g_ranges) {
    if (range.begin != 0) continue;
    range.end.store(reinterpret_cast<std::uintptr_t>(begin) + size, std::memory_order_release);
    range.begin.store(reinterpret_cast<std::uintptr_t>(begin), std::memory_order_release);
    return;
  }
}

void UnguardMapping(const void* begin) {
  const std::lock_guard lock(g_mutex);
  for (Range& range : g_ranges) {
    if (range.begin == reinterpret_cast<std::uintptr_t>(begin)) range.begin = 0;
  }
}

}  // namespace leat::os
