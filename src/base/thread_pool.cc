#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <system_error>
#include <utility>

namespace leat {

void ThreadPool::Shutdown() {
  std::deque<std::function<void()>> dropped;
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    dropped.swap(jobs_);
  }
  wake_.notify_all();
  for (std::thread& t : threads_) {
    if (t.joinable()) t.join();
  }
}

void ThreadPool::Enqueue(std::function<void()> job, bool first) {
  std::unique_lock lock(mutex_);
  if (closing_) return;
  if (sleeping_ <= jobs_.size() && threads_.size() < max_threads_) {
    try {
      threads_.emplace_back([this] { Run(); });
    } catch (const std::system_error&) {
      // No more threads are to be had: those that there are will come to it, or this one does it.
      if (threads_.empty()) {
        lock.unlock();
        return job();
      }
    }
  }
  if (first) {
    jobs_.push_front(std::move(job));
  } else {
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
}

std::size_t ThreadPool::queued() const {
  const std::lock_guard lock(mutex_);
  return jobs_.size();
}

void ThreadPool::Wait() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [&] { return jobs_.empty() && running_ == 0; });
}

void ThreadPool::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    while (jobs_.empty() && !closing_) {
      ++sleeping_;
      wake_.wait(lock);
      --sleeping_;
    }
    if (jobs_.empty()) return;
    std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    ++running_;
    lock.unlock();
    job();
    job = nullptr;
    lock.lock();
    --running_;
    if (jobs_.empty() && running_ == 0) idle_.notify_all();
  }
}

void ParallelFor(std::size_t count, std::size_t threads,
                 const std::function<bool(std::size_t)>& body) {
  ParallelFor(count, [threads] { return threads; }, body);
}

void ParallelFor(std::size_t count, const std::function<std::size_t()>& allowed,
                 const std::function<bool(std::size_t)>& body) {
  constexpr std::chrono::milliseconds kAskAgain{50};
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::condition_variable over;
  std::vector<std::thread> others;  // guarded by mutex
  std::atomic<std::size_t> begun{1};
  std::function<void(std::size_t)> work = [&](std::size_t self) {
    while (next < count) {
      const std::size_t threads = std::max<std::size_t>(allowed(), 1);
      if (self >= threads) {
        std::unique_lock lock(mutex);
        over.wait_for(lock, kAskAgain, [&] { return next >= count; });
        continue;
      }
      const std::size_t i = next.fetch_add(1);
      if (i >= count) break;
      if (i + 1 < count && begun < std::min(threads, count)) {
        const std::lock_guard lock(mutex);
        try {
          for (; begun < std::min(threads, count); ++begun) others.emplace_back(work, begun.load());
        } catch (const std::system_error&) {
          // No more threads are to be had: those that there are do it all.
          begun = count;
        }
      }
      if (!body(i)) next = count;
    }
    const std::lock_guard lock(mutex);
    over.notify_all();
  };
  work(0);
  for (std::unique_lock lock(mutex); !others.empty();) {
    std::thread last = std::move(others.back());
    others.pop_back();
    lock.unlock();
    last.join();
    lock.lock();
  }
}

}  // namespace leat
