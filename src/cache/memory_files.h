// What was fetched and found no room on disk, for the moment until it is read: least recently used
// goes first.
#ifndef LEAT_CACHE_MEMORY_FILES_H_
#define LEAT_CACHE_MEMORY_FILES_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <utility>

#include "base/memory_budget.h"
#include "cache/cache.h"

namespace leat::cache {

/// Thread-safe. Holds half of the memory budget at most; what does not fit is not kept. All caches
/// of a process share one, so that none of them can hold memory that another waits for.
class MemoryFiles {
 public:
  explicit MemoryFiles(MemoryBudget& budget) : budget_(budget), limit_(budget.total() / 2) {}
  ~MemoryFiles() { budget_.Give(held_); }
  MemoryFiles(const MemoryFiles&) = delete;
  MemoryFiles& operator=(const MemoryFiles&) = delete;

  void Put(const Identity& id, std::uint64_t block, const Data& data) {
    const std::lock_guard lock(mutex_);
    const Key key{id.word[0], id.word[1], block};
    if (by_key_.contains(key)) return;
    const std::uint64_t bytes = data.bytes.size();
    if (bytes > limit_) return;
    while (held_ + bytes > limit_) DropOldest();
    if (!TakeOrDrop(bytes)) return;
    held_ += bytes;
    entries_.push_front({key, data});
    by_key_[key] = entries_.begin();
  }

  std::optional<Data> Find(const Identity& id, std::uint64_t block) {
    const std::lock_guard lock(mutex_);
    const auto it = by_key_.find({id.word[0], id.word[1], block});
    if (it == by_key_.end()) return std::nullopt;
    entries_.splice(entries_.begin(), entries_, it->second);
    return it->second->data;
  }

  /// Takes `bytes` of the budget for a fetch, at the expense of what is kept; waits only for what
  /// others have under way.
  bool Take(std::uint64_t bytes, const CallContext& ctx) {
    {
      const std::lock_guard lock(mutex_);
      if (TakeOrDrop(bytes)) return true;
    }
    return budget_.Take(bytes, ctx);
  }
  bool TryTake(std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    return TakeOrDrop(bytes);
  }

  void Forget(const Identity& id, std::uint64_t block) {
    const std::lock_guard lock(mutex_);
    const auto it = by_key_.find({id.word[0], id.word[1], block});
    if (it == by_key_.end()) return;
    entries_.splice(entries_.end(), entries_, it->second);
    DropOldest();
  }

 private:
  using Key = std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>;
  struct Entry {
    Key key;
    Data data;
  };

  bool TakeOrDrop(std::uint64_t bytes) {
    while (!budget_.TryTake(bytes)) {
      if (entries_.empty()) return false;
      DropOldest();
    }
    return true;
  }

  void DropOldest() {
    const std::uint64_t bytes = entries_.back().data.bytes.size();
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
    held_ -= bytes;
    budget_.Give(bytes);
  }

  MemoryBudget& budget_;
  const std::uint64_t limit_;
  std::mutex mutex_;
  std::list<Entry> entries_;
  std::map<Key, std::list<Entry>::iterator> by_key_;
  std::uint64_t held_ = 0;
};

}  // namespace leat::cache

#endif  // LEAT_CACHE_MEMORY_FILES_H_
