// The node's cache of files by identity (design decision 8). It knows no store: a Fetcher brings
// what is missing. docs/formats/cache.md is what lies on disk.
#ifndef LEAT_CACHE_CACHE_H_
#define LEAT_CACHE_CACHE_H_

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/memory_budget.h"
#include "base/thread_pool.h"
#include "digest/digest.h"
#include "os/file.h"

namespace leat::cache {

/// Files below this size are small: fetched whole, kept in segments.
inline constexpr std::uint64_t kLargeFile = kMiB;
/// Large files are kept, checked and fetched in blocks of this size.
inline constexpr std::uint64_t kBlock = 128 * kKiB;

/// What bytes a file has, wherever it is named: equal identities mean equal bytes. Opaque here.
struct Identity {
  std::array<std::uint64_t, 2> word = {};
  bool operator==(const Identity&) const = default;

  /// The first half of the SHA-256 of `text`: nobody can make two files meet in one cache entry.
  static Identity Of(std::string_view text);
  std::string Hex() const;
};

struct FileKey {
  Identity id;
  std::uint64_t size = 0;
};

using Sink = std::function<Status(std::span<const std::byte>)>;

/// Brings the bytes of one file. Called from several threads.
class Fetcher {
 public:
  virtual ~Fetcher() = default;
  /// Delivers exactly [offset, offset + length) in order, or an error.
  virtual Status Fetch(std::uint64_t offset, std::uint64_t length, const Sink& sink,
                       const CallContext& ctx) = 0;
  /// A digest of the whole file, once something has told it; the cache holds a completed large file
  /// to it. (Whole reads of small files are checked by Fetch itself.)
  virtual std::optional<digest::Expected> expected() const { return std::nullopt; }
  /// What the file is called in messages.
  virtual std::string name() const { return "the file"; }
  /// Told that a large file does not have the digest that was expected: what has been delivered of
  /// it must not be used further. Reads fail by then; on a thread for which no reader waits.
  virtual void OnWrong(const Error&) {}
};

/// A Fetcher from anything that reads a file's bytes so: Read(offset, length, sink, ctx),
/// expected() and url().
template <typename Reader>
class FetchFrom : public Fetcher {
 public:
  explicit FetchFrom(Reader reader) : reader_(std::move(reader)) {}
  Status Fetch(std::uint64_t offset, std::uint64_t length, const Sink& sink,
               const CallContext& ctx) override {
    return reader_.Read(offset, length, sink, ctx);
  }
  std::optional<digest::Expected> expected() const override { return reader_.expected(); }
  std::string name() const override { return reader_.url(); }

 private:
  Reader reader_;
};

/// Bytes that stay where they are while `keep` lives.
struct Data {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> keep;  ///< null: as long as the cache
};

/// Moved by whoever reads; zeroed memory is a valid value, so that it may be shared by processes.
struct CacheCounts {
  std::atomic<std::uint64_t> hit_bytes{0}, miss_bytes{0};
  std::atomic<std::uint64_t> dropped{0};  ///< blocks and small files whose checksum did not match
  std::atomic<std::uint64_t> not_admitted{0};  ///< bytes that were fetched and found no room
};

class MemoryFiles;
/// For CacheOptions::memory.
std::shared_ptr<MemoryFiles> MakeMemoryFiles(MemoryBudget& budget);

struct CacheOptions {
  std::string dir;  ///< made when missing; empty: no disk, everything passes through memory
  std::uint64_t limit_bytes = 0;        ///< 0: half of what is free and what the cache holds
  std::uint64_t limit_inodes = 0;       ///< 0: likewise
  MemoryBudget* budget = nullptr;       ///< outlives the cache; for what is not on disk
  std::shared_ptr<MemoryFiles> memory;  ///< shared by the caches of one process; null: its own
  CacheCounts* counts = nullptr;        ///< outlives the cache; may be null
  std::size_t fetch_threads = 16;       ///< of large files
};

/// What a run's snapshot holds in the cache is not evicted while this lives (flock on
/// leases/OWNER).
class Lease;
class LargeFile;
class Disk;

/// How much lies in a cache folder.
struct CacheStat {
  std::string dir;
  std::uint64_t limit_bytes = 0, used_bytes = 0, inodes = 0;
  std::uint64_t small_files = 0, segments = 0, large_files = 0, trees = 0, tree_bytes = 0,
                aside_bytes = 0;
  std::uint64_t leased_bytes = 0;  ///< in use by running jobs
};

/// Thread-safe. Several processes of one user share a folder; every one of them may be killed at
/// any moment.
class Cache {
 public:
  /// Never fails: where the folder cannot be used, the cache lives in memory and problem() says
  /// why.
  static std::unique_ptr<Cache> Open(CacheOptions options);
  ~Cache();
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  /// Why nothing is kept on disk; empty where it is.
  const std::string& problem() const { return problem_; }

  /// `owner`: the source that the entries come from ("https://host s3://bucket prefix").
  std::shared_ptr<Lease> Hold(std::string_view owner);

  /// The whole of a small file if it is here; no system call on what was seen before, no lock.
  std::optional<Data> FindSmall(const FileKey& key);
  /// The whole of a small file; fetched once however many threads and processes ask.
  Result<Data> ReadSmall(const FileKey& key, Lease& lease, Fetcher& fetcher,
                         const CallContext& ctx);

  /// Bytes that a reader got without ReadSmall or LargeFile::Read.
  void CountHit(std::uint64_t bytes) {
    options_.counts->hit_bytes.fetch_add(bytes, std::memory_order_relaxed);
  }

  /// The bytes of a small file turned out to be unreadable: they are not here any more.
  void ForgetSmall(const FileKey& key);

  /// A large file, whether anything of it is here or not. `fetcher` lives in the file.
  std::shared_ptr<LargeFile> OpenLarge(const FileKey& key, std::shared_ptr<Lease> lease,
                                       std::unique_ptr<Fetcher> fetcher);
  /// Bytes of this file that are here, without opening it for good.
  std::uint64_t PresentBytes(const FileKey& key);

  /// Room for bytes and inodes within the limits, by eviction where needed. False: not to be had.
  bool Reserve(std::uint64_t bytes, std::uint64_t inodes);
  void Unreserve(std::uint64_t bytes, std::uint64_t inodes);
  /// The folder for published trees; empty without a disk.
  std::string trees_dir() const;

  /// Ends what is under way (reads get kCancelled) and waits until it has ended.
  void Shutdown();

  static Result<CacheStat> Stat(const std::string& dir, std::uint64_t limit_bytes);
  /// Removes what no running job holds; `all`: what was set aside too. Returns the bytes.
  static Result<std::uint64_t> Clean(const std::string& dir, bool all);

 private:
  friend class LargeFile;
  struct Flight;

  explicit Cache(CacheOptions options);
  Result<Data> FetchSmall(const FileKey& key, Lease& lease, Fetcher& fetcher,
                          const CallContext& ctx);

  CacheOptions options_;
  std::string problem_;
  std::unique_ptr<CacheCounts> own_counts_;
  std::shared_ptr<MemoryFiles> memory_;  // owned by all caches of the process
  std::unique_ptr<Disk> disk_;
  struct Flights;
  std::unique_ptr<Flights> flights_;
  std::stop_source stop_;
  std::unique_ptr<ThreadPool> pool_;
};

/// One large file: blocks on disk as they come, in memory where the disk has no room. Thread-safe.
class LargeFile : public std::enable_shared_from_this<LargeFile> {
 public:
  ~LargeFile();
  std::uint64_t size() const { return key_.size; }

  /// Begins to fetch what is missing of [offset, offset + length), in requests of at most `request`
  /// bytes; returns at once. `demand`: somebody waits for it; else it gives way to what others wait
  /// for and to the memory budget.
  void Start(std::uint64_t offset, std::uint64_t length, std::uint64_t request, bool demand);
  /// The bytes of [offset, offset + length) (within the file, at most 16 MiB), fetched where they
  /// are missing. One piece where they are on disk, copied together where they are not.
  Result<Data> Read(std::uint64_t offset, std::uint64_t length, const CallContext& ctx);
  /// Everything, checked against the expected digest where there is one.
  Status Complete(std::uint64_t request, const CallContext& ctx);

  bool complete() const;
  /// A descriptor of the complete, synced and verified file, for the kernel to read from; none
  /// where it is not (yet) that.
  os::UniqueFd PassthroughFd();
  /// The bytes of this range turned out to be unreadable: they are not here any more.
  void Forget(std::uint64_t offset, std::uint64_t length);
  /// A second name for the complete file, for a tree of plain files. False: there is no such file,
  /// or `path` is on another file system.
  bool LinkTo(const std::string& path, mode_t mode, std::int64_t mtime_ns);

 private:
  friend class Cache;
  struct Flight;
  struct OnDisk;
  struct State;

  LargeFile(Cache& cache, FileKey key, std::shared_ptr<Lease> lease,
            std::unique_ptr<Fetcher> fetcher);
  std::uint64_t BlockBytes(std::uint64_t block) const;
  /// A block that the disk does not give back is fetched again, so many times.
  Result<Data> Read(std::uint64_t offset, std::uint64_t length, const CallContext& ctx,
                    int attempts);
  OnDisk* disk() const;
  /// Opens the file in the cache's folder; makes it when `make`. Null where there is none, or no
  /// room.
  OnDisk* UseDisk(bool make);
  bool Present(std::uint64_t block) const;
  /// Holds a present block to its checksum the first time it is used; one that fails is no longer
  /// present.
  bool Verify(std::uint64_t block);
  bool Matches(std::uint64_t block);
  void Drop(std::uint64_t block);                               // drop_mutex held
  std::shared_ptr<Flight> FlightOf(std::uint64_t block) const;  // mutex held
  void Run(const std::shared_ptr<Flight>& flight);
  Status FetchMissing(Flight& flight);
  Status FetchToDisk(OnDisk& on, std::uint64_t first, std::uint64_t end);
  Status FetchToMemory(Flight& flight, std::uint64_t first, std::uint64_t end);
  /// Syncs and checks the whole of it, and records that. False: another process is at it, which is
  /// left to it where `may_wait`.
  Result<bool> Finalize(const CallContext& ctx, bool may_wait);
  std::unexpected<Error> Poison(const std::string& why);

  Cache& cache_;
  const FileKey key_;
  const std::shared_ptr<Lease> lease_;
  const std::unique_ptr<Fetcher> fetcher_;
  const std::uint64_t blocks_;
  std::unique_ptr<State> state_;
};

}  // namespace leat::cache

#endif  // LEAT_CACHE_CACHE_H_
