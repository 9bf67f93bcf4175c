// The cache's folder: what it may hold, what it holds, who holds it, and what goes first.
#ifndef LEAT_CACHE_DISK_H_
#define LEAT_CACHE_DISK_H_

#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "cache/cache.h"
#include "cache/index.h"
#include "os/file.h"

namespace leat::cache {

/// A source's name in file names and headers: 16 hexadecimal digits of it.
using OwnerId = std::uint64_t;
OwnerId OwnerOf(std::string_view source);
std::string OwnerName(OwnerId owner);

/// What is in a folder; nothing where it cannot be read.
std::vector<std::string> NamesIn(const std::string& path);

template <typename T>
std::optional<T> ParseHex(std::string_view text) {
  T value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (ec != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

class Lease {
 public:
  explicit Lease(OwnerId owner) : owner_(owner) {}
  OwnerId owner() const { return owner_; }
  bool held() const { return static_cast<bool>(file_); }

 private:
  friend class Disk;
  const OwnerId owner_;
  os::UniqueFd file_;  ///< flock, shared; none where it could not be had
};

/// A segment of small files, mapped whole; stays mapped as long as the Disk lives.
struct Segment {
  os::UniqueFd fd;
  os::Mapping map;
  OwnerId owner = 0;
};

inline constexpr std::uint64_t kSegmentBytes = 128 * kMiB;

/// Names this boot of the machine; zeros where it cannot be told. What was written during another
/// one and not synced may have been lost.
const std::array<char, 40>& BootId();

/// What a file of `bytes` takes of the disk.
constexpr std::uint64_t WholePages(std::uint64_t bytes) { return (bytes + 4095) / 4096 * 4096; }

/// In front of every small file's bytes in a segment.
struct RecordHeader {
  std::uint32_t magic = 0;
  std::uint32_t size = 0;
  std::array<std::uint64_t, 2> id = {};
  std::uint64_t sum = 0;         ///< XXH3 of the bytes
  std::uint64_t header_sum = 0;  ///< XXH3 of the fields above
};
static_assert(sizeof(RecordHeader) == 40);
inline constexpr std::uint64_t kRecordAlign = 64;
/// What a small file takes of its segment.
constexpr std::uint64_t RecordBytes(std::uint64_t size) {
  return (sizeof(RecordHeader) + size + kRecordAlign - 1) / kRecordAlign * kRecordAlign;
}

/// First page of files/XX/ID.sums; the blocks' checksums (u64, 0: not here) follow it.
struct SumsHeader {
  std::uint64_t magic;
  std::uint64_t size;
  std::array<std::uint64_t, 2> id;
  std::uint64_t owner;
  std::uint64_t block;
  std::uint64_t header_sum;  ///< XXH3 of the fields above
  /// What was verified whole: during which boot, which inode, last changed when. Zeros: nothing.
  std::array<std::atomic<char>, 40> boot_id;
  std::atomic<std::uint64_t> inode;
  std::atomic<std::int64_t> ctime_s, ctime_ns;
  /// What the store promised of the whole: kind + 1 (0: nothing was told), length, bytes.
  std::atomic<std::uint8_t> promised_kind;
  std::uint8_t promised_size;
  std::array<char, 32> promised;
  /// The whole did not have what was promised: nobody may read it any more.
  std::atomic<std::uint8_t> poisoned;
};
static_assert(sizeof(SumsHeader) <= 4096);
inline constexpr std::uint64_t kSumsHeaderBytes = 4096;

/// Thread-safe. Locks across processes are OFD locks on the file `locks`, so that they die with
/// their process: byte 0 index inserts, byte 1 eviction, from 2^12 on small files under way, from
/// 2^62 on blocks under way.
class Disk {
 public:
  static Result<std::unique_ptr<Disk>> Open(const CacheOptions& options);
  ~Disk();

  const std::string& dir() const { return dir_; }
  std::uint64_t limit_bytes() const { return limit_bytes_; }
  std::uint64_t used_bytes() const;

  std::shared_ptr<Lease> Hold(OwnerId owner);
  /// Before using what another source's run left: takes its lease too. Once an owner; cheap
  /// afterwards.
  /// False: its lease cannot be had now, and nothing of that owner may be used.
  bool Adopt(OwnerId owner);
  /// This process writes no more: whoever is the last to leave says that the counters are right.
  void Leave();

  /// Small files. Find verifies a record the first time this process sees it; `dropped` counts what
  /// did not verify.
  std::optional<Data> Find(const FileKey& key, std::atomic<std::uint64_t>* dropped);
  /// The bytes of a small file turned out to be unreadable.
  void Forget(const FileKey& key, std::atomic<std::uint64_t>* dropped);
  /// Room must have been reserved. Failures are told once and turn the disk off.
  Status Append(const FileKey& key, OwnerId owner, std::span<const std::byte> bytes);

  bool Reserve(std::uint64_t bytes, std::uint64_t inodes);
  /// Reserves for what is fetched whether or not it can be kept; a disk that is full is told once.
  bool Admit(std::uint64_t bytes, std::uint64_t inodes);
  void Unreserve(std::uint64_t bytes, std::uint64_t inodes);

  /// A lock on bytes of the file `locks` among processes; within a process the caller has its own
  /// order.
  bool TryLock(std::uint64_t start, std::uint64_t length) {
    return os::TryLockRange(locks_.get(), start, length);
  }
  void Unlock(std::uint64_t start, std::uint64_t length) {
    os::UnlockRange(locks_.get(), start, length);
  }
  static std::uint64_t SmallLock(const Identity& id) {
    return (1ULL << 12) + (id.word[0] & ((1ULL << 60) - 1));
  }
  static std::uint64_t BlockLock(const Identity& id, std::uint64_t block) {
    return (1ULL << 62) | ((id.word[0] & ((1ULL << 35) - 1)) << 26) | (block & ((1ULL << 26) - 1));
  }

  std::string LargePath(const Identity& id) const;
  /// Something could not be written: one warning, and nothing more is written by this process.
  void TurnOff(const Error& why);
  bool on() const { return on_.load(std::memory_order_relaxed); }

  static Result<CacheStat> Stat(const std::string& dir, std::uint64_t limit_bytes);
  static Result<std::uint64_t> Clean(const std::string& dir, bool all);

 private:
  static constexpr std::uint64_t kSegmentTable = 65536;
  static constexpr std::uint64_t kEvictLock = 1;
  static constexpr std::int64_t kBackOff = 3'000'000'000;
  /// Of the steady clock, in nanoseconds.
  static std::int64_t Now() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

  /// The file `state`, mapped by every process. What is lost or wrong here is made anew from the
  /// folder.
  struct Shared {
    std::atomic<std::uint64_t> used_bytes, used_inodes;
    std::atomic<std::uint32_t> next_segment;
    std::atomic<std::uint32_t> clean;  // the last to leave closed the door
    std::array<char, 40> boot;         // when this was true; it is never synced
    std::atomic<std::uint32_t> users;  // came, and have not left in order
    char reserved[4096 - 24 - 40 - 4];
    std::atomic<std::uint32_t> alive[kSegmentTable];  // segment n lives: alive[n % size] == n
  };

  /// What eviction takes away as one: a segment, a large file, a tree.
  struct Unit {
    enum class Kind : std::uint8_t { kSegment, kLarge, kTree } kind = Kind::kSegment;
    OwnerId owner = 0;
    std::string path;
    std::uint32_t segment = 0;
    std::uint64_t bytes = 0, inodes = 1;
    std::int64_t last_used = 0;
  };
  struct Writer;

  explicit Disk(std::string dir);
  Status Initialize(bool alone);
  bool SegmentAlive(std::uint32_t segment) const;
  Segment* UseSegment(std::uint32_t segment);
  Result<std::uint32_t> NewSegment(OwnerId owner);
  bool LockBriefly(std::uint64_t byte);
  std::vector<Unit> Units() const;
  void SweepHalves();
  bool Take(std::uint64_t bytes, std::uint64_t inodes);
  std::uint64_t FreeBytes() const;
  std::uint64_t Evict(std::uint64_t bytes, std::uint64_t inodes, bool everything);
  /// The bytes that it took; none where it has to stay.
  std::optional<std::uint64_t> Remove(const Unit& unit);
  std::string SegmentPath(OwnerId owner, std::uint32_t segment) const;
  bool DiskHasRoom(std::uint64_t bytes);

  const std::string dir_;
  std::uint64_t limit_bytes_ = 0, limit_inodes_ = 0;
  std::atomic<bool> on_{true};
  os::UniqueFd locks_, in_use_;
  os::Mapping shared_map_;
  Shared* shared_ = nullptr;
  bool counted_ = false;  // among the users in shared_
  std::unique_ptr<Index> index_;

  std::mutex index_mutex_;  // one inserter of this process at a time
  std::mutex evict_mutex_;
  std::atomic<std::int64_t> no_room_until_{
      0};  // steady clock; after an eviction that freed too little
  std::atomic<std::int64_t> no_inserts_until_{0};  // likewise, after the lock was not to be had
  std::atomic<std::int64_t> room_known_{
      0};  // bytes that may be written before the disk is asked again

  std::mutex segments_mutex_;
  std::vector<std::atomic<Segment*>> segments_;  // by number modulo the table's size
  std::vector<std::unique_ptr<Segment>> owned_segments_;

  // Which small files this process has verified: by the index's slot, for one generation of the
  // index, where the record lies.
  struct Verified {
    std::uint64_t generation = 0;
    std::vector<std::atomic<std::uint64_t>> places;
  };
  /// Null: this place's cannot be marked.
  std::atomic<std::uint64_t>* MarkOf(const Place& place);
  std::mutex verified_mutex_;
  std::atomic<Verified*> verified_{nullptr};
  std::vector<std::unique_ptr<Verified>> verified_owned_;

  std::mutex leases_mutex_;
  std::map<OwnerId, std::weak_ptr<Lease>> leases_;
  std::vector<std::shared_ptr<Lease>> adopted_;

  std::mutex writers_mutex_;
  std::map<OwnerId, std::unique_ptr<Writer>> writers_;
};

}  // namespace leat::cache

#endif  // LEAT_CACHE_DISK_H_
