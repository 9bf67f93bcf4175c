// The seam through which code that waits or compares times gets the time, so that tests need not
// sleep.
#ifndef LEAT_BASE_CLOCK_H_
#define LEAT_BASE_CLOCK_H_

#include <chrono>

#include "base/context.h"

namespace leat {

/// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  /// What the calendar says; may jump.
  virtual std::chrono::system_clock::time_point Now() = 0;
  /// Returns early (and false) when `ctx` is cancelled or its deadline comes first.
  virtual bool Sleep(std::chrono::nanoseconds how_long, const CallContext& ctx) = 0;
};

/// The machine's clock; lives for ever.
Clock& SystemClock();

}  // namespace leat

#endif  // LEAT_BASE_CLOCK_H_
