#include "testing/fake_clock.h"

namespace leat::testing {

using std::chrono::system_clock;

FakeClock::FakeClock(Mode mode, system_clock::time_point start) : mode_(mode), now_(start) {}

system_clock::time_point FakeClock::Now() {
  const std::lock_guard lock(mutex_);
  return now_;
}

bool FakeClock::Sleep(std::chrono::nanoseconds how_long, const CallContext& ctx) {
  std::unique_lock lock(mutex_);
  sleeps_.push_back(how_long);
  const auto until = now_ + std::chrono::ceil<system_clock::duration>(how_long);
  if (ctx.cancelled() || ctx.expired()) return false;
  if (mode_ == Mode::kJump) {
    now_ = until;
    return true;
  }
  ++sleepers_;
  changed_.notify_all();
  const bool reached = changed_.wait(lock, ctx.stop, [&] { return now_ >= until; });
  --sleepers_;
  return reached;
}

void FakeClock::Advance(std::chrono::nanoseconds by) {
  const std::lock_guard lock(mutex_);
  now_ += std::chrono::ceil<system_clock::duration>(by);
  changed_.notify_all();
}

std::vector<std::chrono::nanoseconds> FakeClock::sleeps() const {
  const std::lock_guard lock(mutex_);
  return sleeps_;
}

void FakeClock::WaitForSleepers(std::size_t n) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return sleepers_ >= n; });
}

}  // namespace leat::testing
