// The first error of several threads, which ends them all. Private to this folder.
#ifndef LEAT_ARCHIVE_FAILURE_H_
#define LEAT_ARCHIVE_FAILURE_H_

#include <mutex>
#include <optional>
#include <stop_token>
#include <utility>

#include "base/context.h"
#include "base/error.h"

namespace leat::archive {

/// Thread-safe. Calls with its context end when something has failed, or the caller's is cancelled.
class Failure {
 public:
  explicit Failure(const CallContext& caller)
      : deadline_(caller.deadline), on_stop_(caller.stop, Stop{this}) {}

  /// The first one counts: it is the cause of the others.
  void Set(Error error) {
    {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::move(error);
    }
    source_.request_stop();
  }
  /// What failed, or `status` where nothing has yet.
  Status Or(Status status) {
    if (!status) Set(std::move(status).error());
    const std::lock_guard lock(mutex_);
    return error_ ? Status(std::unexpected(*error_)) : Status();
  }
  Status Check() {
    if (CallContext{{}, deadline_}.expired()) Set(Error(Errc::kDeadline, "the time ran out"));
    return Or({});
  }
  std::stop_token stop() const { return source_.get_token(); }
  CallContext context() const { return {source_.get_token(), deadline_}; }

 private:
  struct Stop {
    Failure* failure;
    void operator()() const { failure->Set(Error(Errc::kCancelled, "cancelled")); }
  };

  const CallContext::Clock::time_point deadline_;
  std::mutex mutex_;
  std::optional<Error> error_;
  std::stop_source source_;
  std::stop_callback<Stop> on_stop_;  // the last: it may be called at once
};

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_FAILURE_H_
