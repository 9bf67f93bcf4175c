// Starts the data process, and starts it again when it dies.
#ifndef LEAT_ENGINE_LOCAL_DATA_SUPERVISOR_H_
#define LEAT_ENGINE_LOCAL_DATA_SUPERVISOR_H_

#include <sys/types.h>

#include <chrono>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "job/channel.h"
#include "job/data_process.h"
#include "os/file.h"

namespace leat::engine::local {

/// Not thread-safe; its process must have one thread.
class DataSupervisor {
 public:
  /// Both outlive it. `close_in_child`: run in each data process first (what it must not hold).
  DataSupervisor(std::vector<job::Attachment>& attachments, job::DataOptions options,
                 std::function<void()> close_in_child);
  ~DataSupervisor();

  /// Attaches everything; returns when it is ready. When the signalfd `signals` is readable,
  /// `interrupted` reads it; true ends the waiting (kCancelled).
  Status Attach(int signals, const std::function<bool()>& interrupted);
  /// Attachment i is served from now on, on `device`, by this data process and all that follow.
  Status Serve(std::size_t i, os::UniqueFd device);

  bool running() const { return pid_ > 0; }
  int fd() const { return channel_.fd(); }
  pid_t pid() const { return pid_; }
  /// The channel has something to say: that the snapshot is another, or that the process has died;
  /// then starts another.
  void OnChannel();
  /// Another that could not be started is tried for again: to be called so many milliseconds from
  /// now at the latest (-1: need not).
  int retry_ms() const { return retrying_ ? 200 : -1; }
  void Retry();
  /// Looks now whether the source has changed, where DataOptions::refresh is set.
  void Refresh();
  /// The job is over: ends the data process, which may finish what it has complete.
  void Finish();

 private:
  Status Start();
  void StartAgain();
  void GiveUp();

  std::vector<job::Attachment>& attachments_;
  const job::DataOptions options_;
  const std::function<void()> close_in_child_;
  job::Channel channel_;
  pid_t pid_ = -1;
  std::deque<std::chrono::steady_clock::time_point> deaths_;
  bool given_up_ = false;
  bool retrying_ = false;
  std::chrono::steady_clock::time_point retrying_since_ = {};
};

}  // namespace leat::engine::local

#endif  // LEAT_ENGINE_LOCAL_DATA_SUPERVISOR_H_
