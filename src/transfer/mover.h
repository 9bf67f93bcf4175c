// One file's way from a place to another. Private to this folder.
#ifndef LEAT_TRANSFER_MOVER_H_
#define LEAT_TRANSFER_MOVER_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/concurrency.h"
#include "base/context.h"
#include "base/error.h"
#include "digest/digest.h"
#include "store/object_store.h"
#include "transfer/copy.h"
#include "transfer/partial_file.h"
#include "transfer/place.h"

namespace leat::transfer {

/// At most so many bytes a second, over all threads.
class Bandwidth {
 public:
  explicit Bandwidth(std::uint64_t bytes_per_second) : rate_(bytes_per_second) {}
  /// Waits until they may pass; false when `ctx` ended.
  bool Take(std::uint64_t bytes, const CallContext& ctx);

 private:
  using Time = std::chrono::steady_clock::time_point;
  const std::uint64_t rate_;
  std::mutex mutex_;
  Time free_at_ = {};
};

/// How a file that arrived was held to what the store says of it.
struct Moved {
  std::uint64_t bytes = 0, resumed = 0;
  std::string verified_by;      ///< "MD5"; "" where the store gives nothing
  store::Version version = {};  ///< of the object that was made
};

/// Memory for parts, used again because pages that are new cost as much as hashing them: as much as
/// was under way at once, of the size that was asked for last. Thread-safe.
class Buffers {
 public:
  class Lease {
   public:
    Lease(Buffers& of, std::size_t size);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    std::byte* get() const { return bytes_.get(); }

   private:
    Buffers& of_;
    const std::size_t size_;
    std::unique_ptr<std::byte[]> bytes_;
  };

 private:
  std::mutex mutex_;
  std::size_t size_ = 0;
  std::vector<std::unique_ptr<std::byte[]>> spare_;
};

/// Thread-safe: one for all files of a copy.
class Mover {
 public:
  Mover(const CopyOptions& options, CopyProgress& progress);

  Result<Moved> Move(const Place& from, const Item& item, const Place& to, const CallContext& ctx);
  /// A bucket is made where it is missing, but for one that was there: somebody deletes it then.
  void BucketIsThere(const Place& to);

 private:
  Result<Moved> Download(const Place& from, const Item& item, const Place& to,
                         const CallContext& ctx);
  Result<Moved> DownloadWhole(const Place& from, const Item& item, const std::string& folder,
                              const std::string& name, const CallContext& ctx);
  Result<Moved> DownloadRanges(const Place& from, const Item& item, const std::string& folder,
                               const std::string& name, const CallContext& ctx);
  Result<Moved> CopyLocal(const Place& from, const Item& item, const std::string& folder,
                          const std::string& name, const CallContext& ctx);
  Result<Moved> Upload(const Place& from, const Item& item, const Place& to,
                       const CallContext& ctx);
  Result<Moved> UploadWhole(const Place& from, const Item& item, const Place& to,
                            const CallContext& ctx);
  enum class Bytes : std::uint8_t { kComeHere, kStayThere };
  Result<Moved> UploadParts(const Place& from, const Item& item, const Place& to, Bytes bytes,
                            const CallContext& ctx);
  /// While a file's parts or ranges are brought.
  class LargeFile {
   public:
    explicit LargeFile(Mover& mover) : mover_(mover) { ++mover_.large_; }
    ~LargeFile() { --mover_.large_; }
    LargeFile(const LargeFile&) = delete;
    LargeFile& operator=(const LargeFile&) = delete;

   private:
    Mover& mover_;
  };
  /// How many requests one of the large files may have under way.
  std::size_t Streams();
  /// `below` is relative to `root`.
  Status MakeFolder(const std::string& root, const std::string& below);
  Status MakeBucketOnce(const Place& to, const CallContext& ctx);

  const CopyOptions& options_;
  CopyProgress& progress_;
  Bandwidth bandwidth_;
  const std::uint64_t cutoff_;
  /// Requests of large files, over all of them; each has its share.
  Concurrency streams_;
  std::atomic<std::size_t> large_{0};
  Buffers buffers_;
  std::mutex mutex_;
  std::set<std::string, std::less<>> folders_;  // made already
  std::mutex bucket_mutex_;
  std::set<std::string> buckets_;  // that are or were there
};

}  // namespace leat::transfer

#endif  // LEAT_TRANSFER_MOVER_H_
