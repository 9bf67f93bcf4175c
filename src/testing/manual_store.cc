#include "testing/manual_store.h"

#include <utility>

namespace leat::testing {

ManualStore::ManualStore(std::unique_ptr<store::ObjectStore> inner) : inner_(std::move(inner)) {}
ManualStore::~ManualStore() = default;

std::vector<ManualStore::Pending> ManualStore::pending() const {
  const std::lock_guard lock(mutex_);
  std::vector<Pending> reads;
  for (const auto& [number, waiting] : waiting_) {
    if (!waiting.decided) reads.push_back(waiting.read);
  }
  return reads;
}

std::vector<ManualStore::Pending> ManualStore::WaitForPending(std::size_t n) {
  std::unique_lock lock(mutex_);
  for (;;) {
    std::vector<Pending> reads;
    for (const auto& [number, waiting] : waiting_) {
      if (!waiting.decided) reads.push_back(waiting.read);
    }
    if (reads.size() >= n) return reads;
    changed_.wait(lock);
  }
}

std::uint64_t ManualStore::reads() const {
  const std::lock_guard lock(mutex_);
  return reads_;
}

void ManualStore::Complete(std::uint64_t number) {
  const std::lock_guard lock(mutex_);
  if (const auto it = waiting_.find(number); it != waiting_.end()) it->second.decided = true;
  changed_.notify_all();
}

void ManualStore::Fail(std::uint64_t number, Error error) {
  const std::lock_guard lock(mutex_);
  if (const auto it = waiting_.find(number); it != waiting_.end()) {
    it->second.decided = true;
    it->second.error = std::move(error);
  }
  changed_.notify_all();
}

void ManualStore::LetAllPass() {
  const std::lock_guard lock(mutex_);
  pass_ = true;
  for (auto& [number, waiting] : waiting_) waiting.decided = true;
  changed_.notify_all();
}

void ManualStore::Hold() {
  const std::lock_guard lock(mutex_);
  pass_ = false;
}

Status ManualStore::Read(std::string_view key, const store::ReadOptions& options,
                         const store::Sink& sink, const CallContext& ctx) {
  {
    std::unique_lock lock(mutex_);
    const std::uint64_t number = ++reads_;
    if (!pass_) {
      Waiting& mine = waiting_[number];
      mine.read = {number, std::string(key), options.offset, options.length};
      changed_.notify_all();
      const auto decided = [&] { return mine.decided; };
      const bool go_on = ctx.deadline == CallContext::Clock::time_point::max()
                             ? changed_.wait(lock, ctx.stop, decided)
                             : changed_.wait_until(lock, ctx.stop, ctx.deadline, decided);
      auto error = std::move(mine.error);
      waiting_.erase(number);
      if (!go_on) {
        return leat::Fail(ctx.cancelled() ? Errc::kCancelled : Errc::kDeadline,
                          inner_->UrlOf(key) + ": gave up while it waited");
      }
      if (error) return std::unexpected(*std::move(error));
    }
  }
  return inner_->Read(key, options, sink, ctx);
}

Result<store::ObjectInfo> ManualStore::Stat(std::string_view key, std::string_view version_id,
                                            const CallContext& ctx) {
  return inner_->Stat(key, version_id, ctx);
}
Result<store::ListPage> ManualStore::List(std::string_view prefix,
                                          const store::ListOptions& options,
                                          const CallContext& ctx) {
  return inner_->List(prefix, options, ctx);
}
Result<store::Version> ManualStore::Put(std::string_view key, std::span<const std::byte> body,
                                        const store::PutOptions& options, const CallContext& ctx) {
  return inner_->Put(key, body, options, ctx);
}
Status ManualStore::Remove(std::string_view key, const CallContext& ctx) {
  return inner_->Remove(key, ctx);
}

}  // namespace leat::testing
