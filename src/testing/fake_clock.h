// A clock that moves when the test says so.
#ifndef LEAT_TESTING_FAKE_CLOCK_H_
#define LEAT_TESTING_FAKE_CLOCK_H_

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "base/clock.h"

namespace leat::testing {

/// Thread-safe. kJump: Sleep returns at once and moves the clock by what it was asked for. kWait:
/// Sleep blocks until Advance has moved the clock far enough, or the call is cancelled.
class FakeClock final : public Clock {
 public:
  enum class Mode { kJump, kWait };
  explicit FakeClock(Mode mode = Mode::kJump, std::chrono::system_clock::time_point start =
                                                  std::chrono::system_clock::time_point(
                                                      std::chrono::seconds(1'800'000'000)));

  std::chrono::system_clock::time_point Now() override;
  bool Sleep(std::chrono::nanoseconds how_long, const CallContext& ctx) override;

  void Advance(std::chrono::nanoseconds by);
  /// What Sleep was asked for so far.
  std::vector<std::chrono::nanoseconds> sleeps() const;
  /// Blocks until `n` calls are in Sleep (kWait).
  void WaitForSleepers(std::size_t n);

 private:
  const Mode mode_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::chrono::system_clock::time_point now_;
  std::vector<std::chrono::nanoseconds> sleeps_;
  std::size_t sleepers_ = 0;
};

}  // namespace leat::testing

#endif  // LEAT_TESTING_FAKE_CLOCK_H_
