#include "base/clock.h"

#include <condition_variable>
#include <mutex>

namespace leat {
namespace {

class RealClock final : public Clock {
 public:
  std::chrono::system_clock::time_point Now() override { return std::chrono::system_clock::now(); }

  bool Sleep(std::chrono::nanoseconds how_long, const CallContext& ctx) override {
    const auto until = CallContext::Clock::now() + how_long;
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock(mutex);
    wake.wait_until(lock, ctx.stop, std::min(until, ctx.deadline), [] { return false; });
    return !ctx.cancelled() && CallContext::Clock::now() >= until;
  }
};

}  // namespace

Clock& SystemClock() {
  static RealClock clock;
  return clock;
}

}  // namespace leat
