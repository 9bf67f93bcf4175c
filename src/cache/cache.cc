#include "cache/cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "cache/disk.h"
#include "cache/memory_files.h"

namespace leat::cache {

using namespace std::chrono_literals;

Identity Identity::Of(std::string_view text) {
  const digest::Sha256 hash = digest::HashSha256(AsBytes(text));
  Identity id;
  std::memcpy(id.word.data(), hash.data(), sizeof(id.word));
  return id;
}

std::string Identity::Hex() const { return fmt::format("{:016x}{:016x}", word[0], word[1]); }

/// A small file that is being fetched by this process.
struct Cache::Flight {
  std::mutex mutex;
  std::condition_variable_any done_cv;
  bool done = false;
  std::optional<Result<Data>> result;
};

struct Cache::Flights {
  std::mutex mutex;
  std::map<std::array<std::uint64_t, 2>, std::shared_ptr<Flight>> by_id;
};

std::shared_ptr<MemoryFiles> MakeMemoryFiles(MemoryBudget& budget) {
  return std::make_shared<MemoryFiles>(budget);
}

Cache::Cache(CacheOptions options)
    : options_(std::move(options)),
      memory_(options_.memory ? options_.memory : MakeMemoryFiles(*options_.budget)),
      flights_(std::make_unique<Flights>()),
      pool_(std::make_unique<ThreadPool>(options_.fetch_threads)) {
  if (options_.counts == nullptr) {
    own_counts_ = std::make_unique<CacheCounts>();
    options_.counts = own_counts_.get();
  }
}

std::unique_ptr<Cache> Cache::Open(CacheOptions options) {
  std::unique_ptr<Cache> cache(new Cache(std::move(options)));
  if (cache->options_.dir.empty()) return cache;
  auto disk = Disk::Open(cache->options_);
  if (disk) {
    cache->disk_ = std::move(*disk);
  } else {
    cache->problem_ = disk.error().message();
  }
  return cache;
}

Cache::~Cache() { Shutdown(); }

void Cache::Shutdown() {
  stop_.request_stop();
  pool_->Shutdown();
  if (disk_ != nullptr) disk_->Leave();
}

std::shared_ptr<Lease> Cache::Hold(std::string_view owner) {
  const OwnerId id = OwnerOf(owner);
  return disk_ == nullptr ? std::make_shared<Lease>(id) : disk_->Hold(id);
}

std::optional<Data> Cache::FindSmall(const FileKey& key) {
  if (disk_ != nullptr) {
    if (auto data = disk_->Find(key, &options_.counts->dropped)) return data;
  }
  return memory_->Find(key.id, 0);
}

void Cache::ForgetSmall(const FileKey& key) {
  if (disk_ != nullptr) disk_->Forget(key, &options_.counts->dropped);
  memory_->Forget(key.id, 0);
}

Result<Data> Cache::ReadSmall(const FileKey& key, Lease& lease, Fetcher& fetcher,
                              const CallContext& ctx) {
  if (auto data = FindSmall(key)) {
    options_.counts->hit_bytes.fetch_add(key.size, std::memory_order_relaxed);
    return std::move(*data);
  }
  for (;;) {
    std::shared_ptr<Flight> flight;
    bool leader = false;
    {
      const std::lock_guard lock(flights_->mutex);
      auto& entry = flights_->by_id[key.id.word];
      if (entry == nullptr) {
        entry = std::make_shared<Flight>();
        leader = true;
      }
      flight = entry;
    }
    if (leader) {
      const Result<Data> result = FetchSmall(key, lease, fetcher, ctx);
      {
        const std::lock_guard lock(flights_->mutex);
        flights_->by_id.erase(key.id.word);
      }
      const std::lock_guard lock(flight->mutex);
      flight->result = result;
      flight->done = true;
      flight->done_cv.notify_all();
      return result;
    }
    std::unique_lock lock(flight->mutex);
    flight->done_cv.wait(lock, ctx.stop, [&] { return flight->done; });
    if (!flight->done) return Fail(Errc::kCancelled, "cancelled");
    const Result<Data>& result = *flight->result;
    // Whoever was fetching it gave up (a reader that was interrupted): that is not our failure.
    const bool gave_up = !result && (result.error().code() == Errc::kCancelled ||
                                     result.error().code() == Errc::kDeadline);
    if (!gave_up || ctx.cancelled() || ctx.expired() || stop_.stop_requested()) return result;
  }
}

Result<Data> Cache::FetchSmall(const FileKey& key, Lease& lease, Fetcher& fetcher,
                               const CallContext& ctx) {
  const bool on_disk = disk_ != nullptr && disk_->on();
  bool locked = false;
  if (on_disk) {
    // Another process may be fetching it. Its lock ends with it, however it ends; one that is
    // stopped is not waited for long.
    const auto give_up = CallContext::Clock::now() + 30s;
    auto pause = 200us;
    while (!(locked = disk_->TryLock(Disk::SmallLock(key.id), 1)) &&
           CallContext::Clock::now() < give_up) {
      if (ctx.cancelled() || stop_.stop_requested()) return Fail(Errc::kCancelled, "cancelled");
      std::this_thread::sleep_for(pause);
      pause = std::min<std::chrono::microseconds>(pause * 2, 5ms);
      if (auto data = FindSmall(key)) return std::move(*data);
    }
  }
  const os::Cleanup unlock([&] {
    if (locked) disk_->Unlock(Disk::SmallLock(key.id), 1);
  });
  if (auto data = FindSmall(key)) return std::move(*data);

  if (!memory_->Take(key.size, ctx)) return Fail(Errc::kCancelled, "cancelled");
  struct Buffer {
    MemoryHold hold;
    std::unique_ptr<std::byte[]> bytes;
  };
  auto buffer = std::make_shared<Buffer>();
  buffer->hold = MemoryHold(*options_.budget, key.size);
  buffer->bytes = std::make_unique_for_overwrite<std::byte[]>(key.size);
  std::uint64_t got = 0;
  const auto fetch = [&]() -> Status {
    got = 0;
    LEAT_RETURN_IF_ERROR(fetcher.Fetch(
        0, key.size,
        [&](std::span<const std::byte> piece) -> Status {
          if (piece.size() > key.size - got) {
            return Fail(Errc::kCorrupt, "more bytes arrived than the file has");
          }
          std::memcpy(buffer->bytes.get() + got, piece.data(), piece.size());
          got += piece.size();
          return {};
        },
        ctx));
    if (got != key.size) {
      return Fail(Errc::kCorrupt, fmt::format("{} of {} bytes arrived", got, key.size));
    }
    return {};
  };
  Status fetched = fetch();
  // Damage on the way does not come twice; what the store itself has wrong does.
  if (!fetched && fetched.error().code() == Errc::kCorrupt) fetched = fetch();
  if (!fetched) return std::unexpected(std::move(fetched).error());
  options_.counts->miss_bytes.fetch_add(key.size, std::memory_order_relaxed);
  const Data data{{buffer->bytes.get(), key.size}, buffer};

  const std::uint64_t room = RecordBytes(key.size);
  if (on_disk && disk_->Admit(room, 0)) {
    const Status kept = disk_->Append(key, lease.owner(), data.bytes);
    if (kept) return data;
    disk_->Unreserve(room, 0);
    disk_->TurnOff(kept.error());
  }
  options_.counts->not_admitted.fetch_add(key.size, std::memory_order_relaxed);
  buffer->hold.Release();  // MemoryFiles takes it over, or the reader has it for a moment
  memory_->Put(key.id, 0, data);
  return data;
}

bool Cache::Reserve(std::uint64_t bytes, std::uint64_t inodes) {
  return disk_ != nullptr && disk_->Reserve(bytes, inodes);
}
void Cache::Unreserve(std::uint64_t bytes, std::uint64_t inodes) {
  if (disk_ != nullptr) disk_->Unreserve(bytes, inodes);
}

std::string Cache::trees_dir() const { return disk_ == nullptr ? "" : disk_->dir() + "/trees"; }

Result<CacheStat> Cache::Stat(const std::string& dir, std::uint64_t limit_bytes) {
  return Disk::Stat(dir, limit_bytes);
}
Result<std::uint64_t> Cache::Clean(const std::string& dir, bool all) {
  return Disk::Clean(dir, all);
}

}  // namespace leat::cache
