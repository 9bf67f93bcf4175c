// How many requests to have under way, found by trying.
#ifndef LEAT_BASE_CONCURRENCY_H_
#define LEAT_BASE_CONCURRENCY_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>

namespace leat {

/// As many at once as get the most done, and no more: twice as many are tried and kept while that
/// brings at least a seventh more; every few seconds more or fewer are tried again, since lines and
/// servers change. Thread-safe.
class Concurrency {
 public:
  using Clock = std::chrono::steady_clock;
  /// From `first` on, at most `most`; the same: it stays so. `done` tells how much has been done so
  /// far, in any unit; it is called by Allowed.
  Concurrency(std::size_t first, std::size_t most, std::function<std::uint64_t()> done);

  /// At this moment. To be asked often.
  std::size_t Allowed() { return Allowed(Clock::now()); }
  std::size_t Allowed(Clock::time_point now);

 private:
  void Decide(double rate);

  const std::size_t most_;
  const std::function<std::uint64_t()> done_;
  bool fixed_ = false;
  std::mutex mutex_;            // guards all below
  std::size_t allowed_, kept_;  // kept_: the best so far, while another number is tried
  double kept_rate_ = 0;
  bool try_fewer_ = false, measuring_ = false;
  std::uint64_t done_before_ = 0;
  Clock::time_point since_ = {}, next_ = {};
};

}  // namespace leat

#endif  // LEAT_BASE_CONCURRENCY_H_
