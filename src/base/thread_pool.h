// A bounded pool of threads that run blocking jobs (decision: no coroutines, no futures).
#ifndef LEAT_BASE_THREAD_POOL_H_
#define LEAT_BASE_THREAD_POOL_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace leat {

/// Threads are started when there is work for them, up to `max_threads`, and live as long as the
/// pool. Thread-safe. The destructor is a Shutdown.
class ThreadPool {
 public:
  explicit ThreadPool(std::size_t max_threads) : max_threads_(max_threads) {}
  ~ThreadPool() { Shutdown(); }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// Jobs begin in the order in which they were submitted. A job must not throw.
  void Submit(std::function<void()> job) { Enqueue(std::move(job), false); }
  /// Before all that have not begun: for what somebody waits for.
  void SubmitFirst(std::function<void()> job) { Enqueue(std::move(job), true); }
  /// Jobs that have not begun.
  std::size_t queued() const;
  /// Drops what has not begun and waits for what has; what is submitted later never begins.
  void Shutdown();
  /// Returns when nothing is queued or running.
  void Wait();

 private:
  void Enqueue(std::function<void()> job, bool first);
  void Run();

  const std::size_t max_threads_;
  mutable std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::deque<std::function<void()>> jobs_;
  std::vector<std::thread> threads_;
  std::size_t sleeping_ = 0;
  std::size_t running_ = 0;
  bool closing_ = false;
};

/// Runs body(i) for 0 <= i < count on up to `threads` threads, the calling one among them; returns
/// when all are done. Stops handing out further i after body returned false.
void ParallelFor(std::size_t count, std::size_t threads,
                 const std::function<bool(std::size_t)>& body);
/// The same on as many threads as `allowed` says, at least one; it is asked again before each i,
/// and several times a second.
void ParallelFor(std::size_t count, const std::function<std::size_t()>& allowed,
                 const std::function<bool(std::size_t)>& body);

}  // namespace leat

#endif  // LEAT_BASE_THREAD_POOL_H_
