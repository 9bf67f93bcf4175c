#include "base/concurrency.h"

#include <algorithm>
#include <utility>

namespace leat {
namespace {

using std::chrono::milliseconds;

/// Connections are made and requests of before end.
constexpr milliseconds kSettle{100};
constexpr milliseconds kMeasure{150};
constexpr milliseconds kHold{3000};
constexpr double kWorthMore = 1.15, kAsGood = 0.95;
constexpr std::size_t kLeast = 4;

}  // namespace

Concurrency::Concurrency(std::size_t first, std::size_t most, std::function<std::uint64_t()> done)
    : most_(std::max(first, most)), done_(std::move(done)), allowed_(first), kept_(first) {
  fixed_ = first == most_;
}

std::size_t Concurrency::Allowed(Clock::time_point now) {
  if (fixed_) return allowed_;
  const std::lock_guard lock(mutex_);
  if (next_ == Clock::time_point{}) next_ = now + kSettle;
  if (now < next_) return allowed_;
  const std::uint64_t done = done_();
  if (!measuring_) {
    measuring_ = true;
    since_ = now;
    done_before_ = done;
    next_ = now + kMeasure;
    return allowed_;
  }
  // (what failed may have been taken back)
  if (done <= done_before_) {
    next_ = now + kMeasure;
    return allowed_;
  }
  measuring_ = false;
  Decide(static_cast<double>(done - done_before_) /
         std::chrono::duration<double>(now - since_).count());
  next_ = now + (allowed_ == kept_ ? kHold : kSettle);
  return allowed_;
}

void Concurrency::Decide(double rate) {
  if (allowed_ == kept_) {
    // What it is held to; now the other number.
    kept_rate_ = rate;
    const std::size_t more = std::min(2 * kept_, most_), fewer = std::max(kept_ / 2, kLeast);
    allowed_ = std::exchange(try_fewer_, !try_fewer_) ? fewer : more;
  } else if (allowed_ > kept_ ? rate >= kept_rate_ * kWorthMore : rate >= kept_rate_ * kAsGood) {
    const bool grew = allowed_ > kept_;
    kept_ = allowed_;
    kept_rate_ = rate;
    // As long as it helps.
    if (grew) allowed_ = std::min(2 * kept_, most_);
  } else {
    allowed_ = kept_;
  }
}

}  // namespace leat
