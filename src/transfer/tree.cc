#include "transfer/tree.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "digest/digest.h"
#include "transfer/arrival.h"
#include "transfer/verify.h"

namespace leat::transfer {

using namespace std::chrono_literals;

namespace {

constexpr mode_t kUnfinished = 0600;
constexpr mode_t kFinished = 0444;

/// "<bytes> <inodes> <boot id> <synced 0|1>": the first two are read by the cache's accounting too.
struct LeaseText {
  std::uint64_t bytes = 0, inodes = 0;
  std::string boot;
  bool synced = false;

  std::string Encode() const {
    return fmt::format("{} {} {} {}\n", bytes, inodes, boot, synced ? 1 : 0);
  }
  static std::optional<LeaseText> Read(int fd) {
    char buffer[256];
    const ssize_t n = ::pread(fd, buffer, sizeof(buffer) - 1, 0);
    if (n <= 0) return std::nullopt;
    buffer[n] = 0;
    LeaseText out;
    unsigned long long bytes = 0, inodes = 0;
    char boot[64] = {};
    int synced = 0;
    if (std::sscanf(buffer, "%llu %llu %63s %d", &bytes, &inodes, boot, &synced) != 4)
      return std::nullopt;
    out.bytes = bytes;
    out.inodes = inodes;
    out.boot = boot;
    out.synced = synced == 1;
    return out;
  }
  Status Write(int fd) const {
    const std::string text = Encode();
    // Never empty in between: its process may end at any moment. Lines after the first do not
    // count.
    LEAT_RETURN_IF_ERROR(os::PwriteAll(fd, AsBytes(text), 0));
    if (::ftruncate(fd, static_cast<off_t>(text.size())) != 0)
      return FailErrno(errno, "writing a tree's lease");
    return {};
  }
};

/// Copies one snapshot into DIR.part.
class Copier {
 public:
  Copier(const TreeOptions& options, std::string dir)
      : options_(options),
        content_(*options.content),
        index_(*options.content->index),
        dir_(std::move(dir)) {}

  Status Run(const CallContext& ctx) {
    LEAT_RETURN_IF_ERROR(MakeFolders());
    std::vector<Item> items = Plan();
    std::jthread ticker([&](const std::stop_token& stop) { Tick(stop); });
    std::mutex mutex;
    std::optional<Error> failure;
    ParallelFor(items.size(), options_.threads, [&](std::size_t i) {
      const Status done =
          ctx.cancelled() ? Status(Fail(Errc::kCancelled, "cancelled")) : Copy(items[i], ctx);
      if (done) return true;
      const std::lock_guard lock(mutex);
      if (!failure) failure = done.error();
      return false;
    });
    ticker.request_stop();
    ticker.join();
    Progress("");
    if (failure) return std::unexpected(*failure);
    for (std::uint32_t d = index_.directory_count(); d-- > 0;) {
      if (::chmod(FolderPath(d).c_str(), options_.folder_mode) != 0)
        return FailErrno(errno, FolderPath(d));
    }
    return {};
  }

 private:
  /// A large file whose ranges are being fetched side by side. While it is under way its bytes are
  /// followed by the size of a range and one byte a range, 1 when it is there: so a killed copy is
  /// gone on with.
  struct Large {
    os::UniqueFd fd;
    bool resumed = false;  // an earlier attempt left the file
    std::unique_ptr<snapshot::EntryReader> reader;
    std::mutex turn;  // to write
    std::mutex mutex;
    std::vector<char> there;  // by range: it is in the file; guarded by mutex, like what follows
    std::size_t hashed = 0;   // ranges from the start
    bool hashing = false;     // a thread is at it
    std::unique_ptr<digest::Hasher> hasher;  // used by that thread
  };
  struct Item {
    snapshot::FileIndex file;
    std::uint64_t offset = 0, length = 0;
    Large* large = nullptr;  // null: a whole small file
  };

  std::string FolderPath(snapshot::DirIndex d) const {
    const std::string path = index_.PathOfDirectory(d);
    return path.empty() ? dir_ : dir_ + "/" + path;
  }
  std::string FilePath(snapshot::FileIndex f) const { return dir_ + "/" + index_.PathOfFile(f); }

  Status MakeFolders() {
    LEAT_RETURN_IF_ERROR(os::MakeDirs(dir_, 0755));
    for (std::uint32_t d = 0; d < index_.directory_count(); ++d) {
      const std::string path = FolderPath(d);
      if (::mkdir(path.c_str(), 0755) != 0 && (errno != EEXIST || ::chmod(path.c_str(), 0755) != 0))
        return FailErrno(errno, path);
    }
    return {};
  }

  bool Finished(const std::string& path, std::uint64_t size) const {
    struct stat st;
    return ::lstat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode) &&
           (st.st_mode & 0777) == kFinished && static_cast<std::uint64_t>(st.st_size) == size;
  }

  /// What there is to do: small files in order, then the ranges of large ones.
  std::vector<Item> Plan() {
    std::vector<Item> items;
    std::vector<Item> ranges;
    for (snapshot::FileIndex f = 0; f < index_.file_count(); ++f) {
      const std::uint64_t size = index_.file(f).size;
      total_ += size;
      if (Finished(FilePath(f), size)) {
        done_ += size;
        continue;
      }
      if (size < cache::kLargeFile) {
        items.push_back({f, 0, size, nullptr});
        continue;
      }
      auto large = std::make_unique<Large>();
      large->reader = std::make_unique<snapshot::EntryReader>(options_.content, f);
      const std::string there = RangesThere(FilePath(f), size);
      large->resumed = !there.empty();
      large->there.resize(RangeCount(size));
      for (std::uint64_t at = 0; at < size; at += options_.request) {
        const std::uint64_t length = std::min(options_.request, size - at);
        // The last one is always fetched: with it comes the checksum of the whole.
        if (large->resumed && at + length < size && there[at / options_.request] == 1) {
          large->there[at / options_.request] = 1;
          done_ += length;
          continue;
        }
        ranges.push_back({f, at, length, large.get()});
      }
      larges_.push_back(std::move(large));
    }
    items.insert(items.begin(), ranges.begin(), ranges.end());
    return items;
  }

  Status Finish(int fd, snapshot::FileIndex file) const {
    const std::int64_t mtime = index_.file(file).mtime_ns;
    const timespec times[2] = {{0, UTIME_OMIT}, {mtime / 1'000'000'000, mtime % 1'000'000'000}};
    if (mtime != 0) ::futimens(fd, times);
    if (::fchmod(fd, kFinished) != 0) return FailErrno(errno, FilePath(file));
    return {};
  }

  Result<os::UniqueFd> Create(snapshot::FileIndex file) const {
    const std::string path = FilePath(file);
    // Never truncated: what is there may be another name of a file of the cache.
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return FailErrno(errno, path);
    return os::Open(path, O_RDWR | O_CREAT | O_EXCL, kUnfinished);
  }

  Status Copy(const Item& item, const CallContext& ctx) {
    return item.large == nullptr ? CopySmall(item.file, ctx) : CopyRange(item, ctx);
  }

  Status CopySmall(snapshot::FileIndex file, const CallContext& ctx) {
    const std::uint64_t size = index_.file(file).size;
    LEAT_ASSIGN_OR_RETURN(const os::UniqueFd fd, Create(file));
    if (size > 0) {
      const auto cached = options_.cache->FindSmall(KeyOf(file));
      if (cached) {
        LEAT_RETURN_IF_ERROR(os::PwriteAll(fd.get(), cached->bytes, 0));
        done_ += size;
      } else {
        snapshot::EntryReader reader(options_.content, file);
        LEAT_RETURN_IF_ERROR(ReadTo(reader, fd.get(), 0, size, nullptr, ctx));
      }
    }
    return Finish(fd.get(), file);
  }

  /// `turn` is held while writing: threads that write to one file would spin for its lock.
  Status ReadTo(snapshot::EntryReader& reader, int fd, std::uint64_t offset, std::uint64_t length,
                std::mutex* turn, const CallContext& ctx) {
    for (int attempt = 0;; ++attempt) {
      std::uint64_t written = 0;
      Arrival arrival(std::nullopt, offset,
                      [&](std::span<const std::byte> bytes, std::uint64_t at) -> Status {
                        std::unique_lock<std::mutex> lock;
                        if (turn != nullptr) lock = std::unique_lock(*turn);
                        LEAT_RETURN_IF_ERROR(os::PwriteAll(fd, bytes, at));
                        written += bytes.size();
                        done_ += bytes.size();
                        return {};
                      });
      Status read = reader.Read(
          offset, length, [&](std::span<const std::byte> piece) { return arrival.Take(piece); },
          ctx);
      if (read) read = arrival.Flush();
      // Damage on the way does not come twice.
      if (read || read.error().code() != Errc::kCorrupt || attempt > 0) return read;
      done_ -= written;
    }
  }

  cache::FileKey KeyOf(snapshot::FileIndex file) const {
    return {cache::Identity::Of(content_.IdentityOf(file)), index_.file(file).size};
  }

  std::uint64_t RangeCount(std::uint64_t size) const {
    return (size + options_.request - 1) / options_.request;
  }

  /// Which ranges of a large file an earlier attempt brought, a byte each; empty when none can be
  /// used.
  std::string RangesThere(const std::string& path, std::uint64_t size) const {
    std::string tail(sizeof(std::uint64_t) + RangeCount(size), '\0');
    struct stat st;
    const auto fd = os::Open(path, O_RDONLY | O_NOFOLLOW);
    if (!fd || ::fstat(fd->get(), &st) != 0 || (st.st_mode & 0777) != kUnfinished ||
        st.st_nlink != 1 || static_cast<std::uint64_t>(st.st_size) != size + tail.size() ||
        !os::PreadAll(fd->get(), std::as_writable_bytes(std::span(tail)), size)) {
      return "";
    }
    std::uint64_t request = 0;
    std::memcpy(&request, tail.data(), sizeof(request));
    return request == options_.request ? tail.substr(sizeof(request)) : "";
  }

  Status OpenLarge(Large& large, snapshot::FileIndex file) {
    const std::lock_guard lock(large_mutex_);
    if (large.fd) return {};
    if (large.resumed) {
      LEAT_ASSIGN_OR_RETURN(large.fd, os::Open(FilePath(file), O_RDWR));
      return {};
    }
    const std::uint64_t size = index_.file(file).size;
    LEAT_ASSIGN_OR_RETURN(os::UniqueFd fd, Create(file));
    if (::ftruncate(fd.get(), static_cast<off_t>(size + sizeof(std::uint64_t) + RangeCount(size))))
      return FailErrno(errno, FilePath(file));
    const std::uint64_t request = options_.request;
    LEAT_RETURN_IF_ERROR(os::PwriteAll(fd.get(), std::as_bytes(std::span(&request, 1)), size));
    large.fd = std::move(fd);
    return {};
  }

  /// Says that the item's range is there, and hashes behind the network what is there in order, so
  /// that little is left to do at the end. True for the one call after which the whole is hashed.
  Result<bool> HashOn(Large& large, const Item& item,
                      const std::optional<digest::Expected>& expected, const CallContext& ctx) {
    const std::uint64_t size = index_.file(item.file).size;
    std::unique_lock lock(large.mutex);
    large.there[item.offset / options_.request] = 1;
    if (std::exchange(large.hashing, true)) return false;
    Status hashed;
    while (hashed && large.hashed < large.there.size() && large.there[large.hashed] != 0) {
      const std::uint64_t begin = large.hashed * options_.request;
      lock.unlock();
      if (expected) {
        if (!large.hasher) large.hasher = std::make_unique<digest::Hasher>(expected->kind);
        hashed = HashRange(large.fd.get(), begin, std::min(options_.request, size - begin),
                           *large.hasher, ctx);
      }
      lock.lock();
      if (hashed) ++large.hashed;
    }
    large.hashing = false;
    if (!hashed) return std::unexpected(hashed.error());
    return large.hashed == large.there.size();
  }

  Status CopyRange(const Item& item, const CallContext& ctx) {
    Large& large = *item.large;
    const std::uint64_t size = index_.file(item.file).size;
    LEAT_RETURN_IF_ERROR(OpenLarge(large, item.file));
    LEAT_RETURN_IF_ERROR(
        ReadTo(*large.reader, large.fd.get(), item.offset, item.length, &large.turn, ctx));
    LEAT_RETURN_IF_ERROR(
        os::PwriteAll(large.fd.get(), AsBytes("\1"),
                      size + sizeof(std::uint64_t) + item.offset / options_.request));
    const auto expected = size > options_.request ? large.reader->expected() : std::nullopt;
    LEAT_ASSIGN_OR_RETURN(const bool all, HashOn(large, item, expected, ctx));
    if (!all) return {};
    if (expected && large.hasher->Finish() != expected->value) {
      ::unlink(FilePath(item.file).c_str());  // nothing of it is to be gone on with
      return FailDigest(content_.UrlOf(item.file), digest::KindName(expected->kind));
    }
    if (::ftruncate(large.fd.get(), static_cast<off_t>(size)) != 0)
      return FailErrno(errno, FilePath(item.file));
    const Status finished = Finish(large.fd.get(), item.file);
    large.fd.Reset();
    return finished;
  }

  void Tick(const std::stop_token& stop) const {
    const auto began = std::chrono::steady_clock::now();
    const std::uint64_t first = done_;
    while (!stop.stop_requested()) {
      std::this_thread::sleep_for(100ms);
      const double seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
      if (seconds < 0.5) continue;
      const std::uint64_t done = done_;
      const double rate = static_cast<double>(done - std::min(first, done)) / seconds;
      const std::uint64_t rest = total_ - std::min(done, total_);
      Progress(fmt::format(
          "copying {}: {} of {}, {}/s{}", options_.source, FormatBytes(done), FormatBytes(total_),
          FormatBytes(static_cast<std::uint64_t>(rate)),
          rate > 0 ? fmt::format(", {:.0f} s left", static_cast<double>(rest) / rate) : ""));
    }
  }

  const TreeOptions& options_;
  const snapshot::Content& content_;
  const snapshot::Snapshot& index_;
  const std::string dir_;
  std::uint64_t total_ = 0;
  std::atomic<std::uint64_t> done_{0};
  std::mutex large_mutex_;
  std::vector<std::unique_ptr<Large>> larges_;
};

/// Links the large files that the cache has complete into the tree.
Status LinkCached(const TreeOptions& options, const std::string& part, std::uint64_t* linked,
                  const CallContext& ctx) {
  const snapshot::Snapshot& index = *options.content->index;
  std::shared_ptr<cache::Lease> lease;
  for (snapshot::FileIndex f = 0; f < index.file_count(); ++f) {
    const std::uint64_t size = index.file(f).size;
    if (size < cache::kLargeFile) continue;
    const cache::FileKey key{cache::Identity::Of(options.content->IdentityOf(f)), size};
    if (options.cache->PresentBytes(key) != size) continue;
    if (!lease)
      lease = options.cache->Hold(fmt::format("{} {}", index.store_identity(), index.prefix()));
    const auto file =
        options.cache->OpenLarge(key, lease,
                                 std::make_unique<cache::FetchFrom<snapshot::EntryReader>>(
                                     snapshot::EntryReader(options.content, f)));
    LEAT_RETURN_IF_ERROR(file->Complete(options.request, ctx));
    const std::string path = part + "/" + index.PathOfFile(f);
    LEAT_RETURN_IF_ERROR(os::MakeDirs(path.substr(0, path.rfind('/')), 0755));
    ::unlink(path.c_str());
    if (file->LinkTo(path, kFinished, index.file(f).mtime_ns)) *linked += size;
  }
  return {};
}

std::string BaseOf(const TreeOptions& options) {
  const std::string in_cache = options.cache->trees_dir();
  return in_cache.empty() ? options.fallback_dir : in_cache;
}

std::string PathOf(const TreeOptions& options) {
  const snapshot::Snapshot& index = *options.content->index;
  return BaseOf(options) + "/" +
         cache::Identity::Of(fmt::format("{}\n{}\n{}{}{}", index.store_identity(), index.prefix(),
                                         index.pin(), options.made.empty() ? "" : "\n",
                                         options.made))
             .Hex();
}

/// Nothing of it can have been lost with the power.
bool IsTrusted(const std::optional<LeaseText>& lease) {
  return lease && (lease->synced || lease->boot == os::BootId());
}

/// On its way to the disk while the job runs. Until that is said in the lease, another boot does
/// not trust the tree.
void SyncLater(const std::string& path, const LeaseText& text, const os::UniqueFd& lease) {
  std::thread([path, text = text, fd = ::fcntl(lease.get(), F_DUPFD_CLOEXEC, 3)]() mutable {
    const os::UniqueFd held(fd);
    const auto dir = os::Open(path, O_RDONLY | O_DIRECTORY);
    if (!dir || ::syncfs(dir->get()) != 0) return;
    text.synced = true;
    if (text.Write(held.get())) ::fdatasync(held.get());
  }).detach();
}

}  // namespace

Status FetchTree(const TreeOptions& options, const std::string& dir, const CallContext& ctx) {
  Copier copier(options, dir);
  return copier.Run(ctx);
}

bool IsPublished(const TreeOptions& options) {
  const std::string path = PathOf(options);
  const auto lease = os::Open(path + ".lease", O_RDONLY);
  return lease && os::Exists(path) && IsTrusted(LeaseText::Read(lease->get()));
}

Result<Tree> PublishTree(const TreeOptions& options, const CallContext& ctx) {
  const snapshot::Snapshot& index = *options.content->index;
  const std::string base = BaseOf(options);
  const bool in_cache = !options.cache->trees_dir().empty();
  if (base.empty())
    return Fail(
        Errc::kNoSpace,
        options.source + ": mode=copy needs a folder to copy to; set LEAT_HOME or LEAT_CACHE_DIR");
  LEAT_RETURN_IF_ERROR(os::MakeDirs(base, 0700));
  const std::string path = PathOf(options);
  const std::string part = path + ".part";

  for (;;) {
    Tree tree;
    tree.path = path;
    LEAT_ASSIGN_OR_RETURN(tree.lease, os::Open(path + ".lease", O_RDWR | O_CREAT));
    const auto current = [&] {
      // Eviction may have removed the lease's file while we waited for it.
      struct stat mine, there;
      return ::fstat(tree.lease.get(), &mine) == 0 &&
             ::stat((path + ".lease").c_str(), &there) == 0 && mine.st_ino == there.st_ino;
    };
    const auto wait = [&](const std::function<bool()>& there) -> Status {
      Progress("waiting for another run that copies " + options.source);
      for (auto pause = 20ms; !there();
           pause = std::min<std::chrono::milliseconds>(pause * 2, 500ms)) {
        if (ctx.cancelled()) return Fail(Errc::kCancelled, "cancelled");
        std::this_thread::sleep_for(pause);
      }
      return {};
    };
    const auto share = [&] { return os::Flock(tree.lease.get(), false, false).has_value(); };
    if (!share()) LEAT_RETURN_IF_ERROR(wait(share));
    if (!current()) continue;
    if (const auto text = LeaseText::Read(tree.lease.get()); os::Exists(path) && IsTrusted(text)) {
      if (!text->synced) SyncLater(path, *text, tree.lease);
      ::futimens(tree.lease.get(), nullptr);
      tree.reused = true;
      return tree;
    }
    if (!os::Flock(tree.lease.get(), true, false)) {
      // Until its maker shares it, or is gone.
      LEAT_RETURN_IF_ERROR(wait([&] {
        return os::Flock(tree.lease.get(), true, false) || (os::Exists(path) && share());
      }));
      continue;
    }
    if (!current()) continue;
    const auto text_there = LeaseText::Read(tree.lease.get());
    const bool trusted = IsTrusted(text_there);
    if (trusted && os::Exists(path)) continue;  // made while we waited
    if (!trusted) {
      // It may have holes since the power went, finished or half-made.
      LEAT_RETURN_IF_ERROR(os::RemoveTree(path));
      LEAT_RETURN_IF_ERROR(os::RemoveTree(part));
    }

    std::uint64_t linked = 0;
    if (in_cache && !options.fill) {
      if (const Status done = LinkCached(options, part, &linked, ctx); !done)
        Debug(done.error().message());
    }
    const std::uint64_t bytes = options.fill
                                    ? options.bytes
                                    : index.total_bytes() - linked +
                                          4096ULL * (index.file_count() + index.directory_count());
    const std::uint64_t inodes =
        options.fill ? options.inodes : index.file_count() + index.directory_count();
    // What an earlier attempt reserved is reserved still, and said in the lease.
    const std::uint64_t had_bytes = text_there ? text_there->bytes : 0;
    const std::uint64_t had_inodes = text_there ? text_there->inodes : 0;
    if (in_cache) {
      options.cache->Unreserve(had_bytes - std::min(had_bytes, bytes),
                               had_inodes - std::min(had_inodes, inodes));
      if (!options.cache->Reserve(bytes - std::min(had_bytes, bytes),
                                  inodes - std::min(had_inodes, inodes))) {
        return Fail(
            Errc::kNoSpace,
            options.fill
                ? fmt::format("{}: its contents may take {}, more than the cache in {} may hold; "
                              "give it room (--cache-size, leat cache clean)",
                              options.source, FormatBytes(bytes), base)
                : fmt::format(
                      "{}: mode=copy needs {} and {} files, more than the cache in {} may hold; "
                      "give it room (--cache-size, leat cache clean) or use mode=stream",
                      options.source, FormatBytes(index.total_bytes()), FormatCount(inodes), base));
      }
    } else {
      const std::uint64_t free = os::FreeBytes(base);
      if (bytes > free && bytes - free > os::UsageOf(part).bytes) {
        return Fail(Errc::kNoSpace,
                    fmt::format("{}: mode=copy needs {}, but {} has {}", options.source,
                                FormatBytes(bytes), base, FormatBytes(free)));
      }
    }
    LeaseText text{bytes, inodes, os::BootId(), false};
    LEAT_RETURN_IF_ERROR(text.Write(tree.lease.get()));
    // Where it fails, what is there stays for the next attempt, or until it is evicted.
    if (!options.fill) {
      LEAT_RETURN_IF_ERROR(FetchTree(options, part, ctx));
    } else {
      LEAT_RETURN_IF_ERROR(os::MakeDirs(part, 0755));
      LEAT_RETURN_IF_ERROR(options.fill(part, ctx));
      const auto [took_bytes, took_inodes] = os::UsageOf(part);
      if (in_cache) {
        options.cache->Unreserve(text.bytes - std::min(text.bytes, took_bytes),
                                 text.inodes - std::min(text.inodes, took_inodes));
        if (!options.cache->Reserve(took_bytes - std::min(text.bytes, took_bytes),
                                    took_inodes - std::min(text.inodes, took_inodes))) {
          return Fail(
              Errc::kNoSpace,
              fmt::format("{}: its contents take {} and {} files, more than the cache in {} "
                          "may hold; give it room (--cache-size, leat cache clean)",
                          options.source, FormatBytes(took_bytes), FormatCount(took_inodes), base));
        }
      }
      text.bytes = took_bytes;
      text.inodes = took_inodes;
      LEAT_RETURN_IF_ERROR(text.Write(tree.lease.get()));
    }
    if (::rename(part.c_str(), path.c_str()) != 0) return FailErrno(errno, "publishing " + path);
    SyncLater(path, text, tree.lease);
    LEAT_RETURN_IF_ERROR(os::Flock(tree.lease.get(), false, true));
    if (current() && os::Exists(path)) return tree;  // eviction may have come in between
  }
}

}  // namespace leat::transfer
