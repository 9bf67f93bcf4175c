// One budget of bytes for everything a process holds on behalf of readers (decision 9).
#ifndef LEAT_BASE_MEMORY_BUDGET_H_
#define LEAT_BASE_MEMORY_BUDGET_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "base/context.h"

namespace leat {

/// Thread-safe. Whoever takes bytes gives them back; Hold does that by scope.
class MemoryBudget {
 public:
  explicit MemoryBudget(std::uint64_t bytes) : total_(bytes) {}

  /// 1/8 of the cgroup's or the machine's memory, at least 64 MiB, at most 1 GiB.
  static std::uint64_t DefaultBytes();

  /// Takes `bytes` if they are there at once: for readahead, which shrinks rather than waits.
  bool TryTake(std::uint64_t bytes);
  /// Waits for them: for what a reader asked for. A single taking of more than the whole budget is
  /// let through when nothing else is held. False when `ctx` was cancelled or expired.
  bool Take(std::uint64_t bytes, const CallContext& ctx);
  void Give(std::uint64_t bytes);

  std::uint64_t total() const { return total_; }
  std::uint64_t used() const;

 private:
  const std::uint64_t total_;
  mutable std::mutex mutex_;
  std::condition_variable_any freed_;
  std::uint64_t used_ = 0;
};

/// Gives back what was taken when it goes out of scope. Movable, one owner.
class MemoryHold {
 public:
  MemoryHold() = default;
  /// Adopts `bytes` that were taken from `budget` already.
  MemoryHold(MemoryBudget& budget, std::uint64_t bytes) : budget_(&budget), bytes_(bytes) {}
  MemoryHold(MemoryHold&& other) noexcept : budget_(other.budget_), bytes_(other.bytes_) {
    other.bytes_ = 0;
  }
  MemoryHold& operator=(MemoryHold&& other) noexcept;
  ~MemoryHold() { Release(); }
  void Release();

 private:
  MemoryBudget* budget_ = nullptr;
  std::uint64_t bytes_ = 0;
};

/// What is given back to a budget goes back to the system and does not stay in the heap. For the
/// whole process, before its threads begin.
void KeepHeapSmall();

}  // namespace leat

#endif  // LEAT_BASE_MEMORY_BUDGET_H_
