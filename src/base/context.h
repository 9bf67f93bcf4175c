// What every blocking call carries: how to be cancelled, and until when it is worth going on.
#ifndef LEAT_BASE_CONTEXT_H_
#define LEAT_BASE_CONTEXT_H_

#include <chrono>
#include <stop_token>

namespace leat {

/// A value; cheap to copy. The default is never cancelled and has no deadline.
struct CallContext {
  using Clock = std::chrono::steady_clock;

  std::stop_token stop = {};
  Clock::time_point deadline = Clock::time_point::max();

  bool cancelled() const { return stop.stop_requested(); }
  bool expired() const { return deadline != Clock::time_point::max() && Clock::now() >= deadline; }
  /// The same call, to end no later than `limit` from now.
  CallContext Within(Clock::duration limit) const {
    const auto until = Clock::now() + limit;
    return {stop, until < deadline ? until : deadline};
  }
};

}  // namespace leat

#endif  // LEAT_BASE_CONTEXT_H_
