#include "transfer/mover.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "os/file.h"
#include "snapshot/key_rules.h"
#include "transfer/arrival.h"
#include "transfer/verify.h"

namespace leat::transfer {
namespace {

constexpr std::uint64_t kCutoff = 16 * kMiB;
constexpr std::uint64_t kRange = 8 * kMiB;
constexpr std::size_t kStreams = 8, kMostStreams = 32;
constexpr std::uint64_t kLargestRange = 64 * kMiB;

std::string FolderOf(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return std::string(path.substr(0, slash == path.npos ? 0 : slash));
}
std::string_view LastOf(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return slash == path.npos ? path : path.substr(slash + 1);
}

std::int64_t TimeOf(const store::ObjectInfo& info) {
  if (const auto own = store::MtimeOf(info.metadata)) return *own;
  if (!info.modified) return 0;
  return std::chrono::duration_cast<std::chrono::nanoseconds>(info.modified->time_since_epoch())
      .count();
}

/// In place of what has the name, unless that is a folder.
Status MakeLink(const std::string& target, const std::string& folder, const std::string& name) {
  const std::string link = folder + "/" + name.substr(0, name.size() - kLinkSuffix.size());
  const std::string temporary = folder + "/" + TemporaryName();
  if (::symlink(target.c_str(), temporary.c_str()) != 0) return FailErrno(errno, link);
  if (::rename(temporary.c_str(), link.c_str()) == 0) return {};
  const int error = errno;
  ::unlink(temporary.c_str());
  return FailErrno(error, link);
}

/// The credentials of one may not reach the other.
bool ByThisMachine(const Error& of_the_servers_copy) {
  const Errc code = of_the_servers_copy.code();
  return code == Errc::kUnsupported || code == Errc::kDenied || code == Errc::kNotFound;
}

/// Servers that do not copy parts say so in many ways.
bool MayKnowNoCopiedParts(const Error& error) {
  const Errc code = error.code();
  return ByThisMachine(error) || code == Errc::kInvalid || code == Errc::kCorrupt;
}

}  // namespace

bool Bandwidth::Take(std::uint64_t bytes, const CallContext& ctx) {
  if (rate_ == 0) return true;
  Time until;
  {
    const std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    free_at_ = std::max(free_at_, now) +
               std::chrono::nanoseconds(static_cast<std::int64_t>(1e9 * static_cast<double>(bytes) /
                                                                  static_cast<double>(rate_)));
    until = free_at_;
  }
  while (std::chrono::steady_clock::now() < until) {
    if (ctx.cancelled()) return false;
    std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(
        until - std::chrono::steady_clock::now(), std::chrono::milliseconds(100)));
  }
  return true;
}

Mover::Mover(const CopyOptions& options, CopyProgress& progress)
    : options_(options),
      progress_(progress),
      bandwidth_(options.bytes_per_second),
      cutoff_(options.cutoff == 0 ? kCutoff : options.cutoff),
      streams_(options.streams == 0 ? kStreams : options.streams,
               options.streams == 0 ? kMostStreams : options.streams,
               [&progress] { return progress.bytes.load(); }) {}

std::size_t Mover::Streams() {
  const std::size_t allowed = streams_.Allowed();
  return options_.streams != 0 ? allowed : std::max<std::size_t>(1, allowed / large_);
}

Result<Moved> Mover::Move(const Place& from, const Item& item, const Place& to,
                          const CallContext& ctx) {
  const std::string key = to.KeyOf(to.NameFor(item));
  if (to.local()) return Download(from, item, to, ctx);
  if (from.SameServer(to) && item.size <= to.store->upload_limits().max_put) {
    Result<store::Version> copied = Fail(Errc::kInternal, "");
    for (int tries = 0; tries < 2; ++tries) {
      copied = to.store->CopyFrom(from.bucket(), from.KeyOf(item.path), item.version, key, ctx);
      if (copied || copied.error().code() != Errc::kNotFound || tries > 0) break;
      if (!MakeBucketOnce(to, ctx)) break;
    }
    if (copied) {
      progress_.bytes += item.size;
      return Moved{
          .bytes = item.size, .verified_by = "the store's own copy", .version = *std::move(copied)};
    }
    if (!ByThisMachine(copied.error())) return std::unexpected(std::move(copied).error());
  } else if (from.SameServer(to) && to.store->capabilities().copy_parts) {
    Result<Moved> copied = UploadParts(from, item, to, Bytes::kStayThere, ctx);
    if (copied || !MayKnowNoCopiedParts(copied.error())) return copied;
  }
  return Upload(from, item, to, ctx);
}

Status Mover::MakeFolder(const std::string& root, const std::string& below) {
  const std::string whole = below.empty() ? root : root + "/" + below;
  {
    const std::lock_guard lock(mutex_);
    if (folders_.contains(whole)) return {};
  }
  LEAT_RETURN_IF_ERROR(os::MakeDirs(root, 0777));
  // Not through a link: it may have come with the source, and lead anywhere.
  for (std::size_t end = 0; end < below.size();) {
    end = std::min(below.find('/', end + 1), below.size());
    const std::string path = root + "/" + below.substr(0, end);
    if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) return FailErrno(errno, path);
    struct stat st;
    if (::lstat(path.c_str(), &st) != 0) return FailErrno(errno, path);
    if (S_ISLNK(st.st_mode)) {
      return Fail(Errc::kInvalid,
                  path +
                      " is a symbolic link: nothing is written through it; copy to where it "
                      "leads, or remove it");
    }
    if (!S_ISDIR(st.st_mode)) return Fail(Errc::kInvalid, path + " is a file, not a folder");
  }
  const std::lock_guard lock(mutex_);
  folders_.insert(whole);
  return {};
}

void Mover::BucketIsThere(const Place& to) {
  const std::lock_guard lock(bucket_mutex_);
  buckets_.insert(std::string(to.store->Identity()));
}

Status Mover::MakeBucketOnce(const Place& to, const CallContext& ctx) {
  const std::lock_guard lock(bucket_mutex_);
  const std::string which(to.store->Identity());
  if (buckets_.contains(which)) return {};
  LEAT_RETURN_IF_ERROR(to.store->MakeBucket(ctx));
  buckets_.insert(which);
  return {};
}

// ---------------------------------------------------------------- to this machine

Result<Moved> Mover::Download(const Place& from, const Item& item, const Place& to,
                              const CallContext& ctx) {
  const std::string path = to.NameFor(item);
  const bool as_link = options_.links == Links::kKeep && path.ends_with(kLinkSuffix);
  const bool folder_key = path.empty() || path.ends_with('/');
  if (folder_key || snapshot::FindProblem(path) != snapshot::KeyProblem::kNone) {
    return Fail(Errc::kInvalid,
                fmt::format("{}: {}", from.NameOf(item.path), snapshot::WhyLeftOut(path)));
  }
  const std::string below = FolderOf(path);
  const std::string folder = below.empty() ? to.folder : to.folder + "/" + below;
  const std::string name(LastOf(path));
  LEAT_RETURN_IF_ERROR(MakeFolder(to.folder, below));
  struct stat st;
  if (::lstat((folder + "/" + name).c_str(), &st) == 0 && !S_ISREG(st.st_mode) &&
      !S_ISLNK(st.st_mode)) {
    return Fail(Errc::kInvalid,
                fmt::format("{}/{} is {}", folder, name,
                            S_ISDIR(st.st_mode) ? "a folder" : "neither a file nor a link"));
  }
  if (as_link && item.size < 4096 && !from.local()) {
    std::string target(item.size, '\0');
    LEAT_ASSIGN_OR_RETURN(const std::size_t got,
                          store::ReadInto(*from.store, from.KeyOf(item.path),
                                          std::as_writable_bytes(std::span(target)),
                                          {.if_version = item.version}, ctx));
    target.resize(got);
    LEAT_RETURN_IF_ERROR(MakeLink(target, folder, name));
    return Moved{.bytes = item.size, .verified_by = ""};
  }
  // Ranges of what has no version may be of two objects; a web server may know none, and send all
  // of it for each.
  const auto bring = [&] {
    if (from.local()) return CopyLocal(from, item, folder, name, ctx);
    // (a small one in parts, too, has nothing but those to be held to)
    const bool by_parts = options_.verify && item.in_parts && !item.expected;
    if ((item.size < cutoff_ && !by_parts) || item.version.empty() ||
        !from.store->capabilities().list)
      return DownloadWhole(from, item, folder, name, ctx);
    return DownloadRanges(from, item, folder, name, ctx);
  };
  Result<Moved> moved = bring();
  // Damage on the way does not come twice; what the store itself has wrong does. (Nor does a file
  // that could not be published in the quicker way.)
  const Errc code = moved ? Errc::kInternal : moved.error().code();
  return code == Errc::kCorrupt || code == Errc::kUnsupported ? bring() : std::move(moved);
}

Result<Moved> Mover::DownloadWhole(const Place& from, const Item& item, const std::string& folder,
                                   const std::string& name, const CallContext& ctx) {
  const std::string key = from.KeyOf(item.path);
  LEAT_ASSIGN_OR_RETURN(const auto file,
                        PartialFile::Open(folder, name, item.size, "", std::max(item.size, 1UL)));
  std::optional<digest::Expected> expected;
  std::optional<Arrival> arrival;
  std::uint64_t arrived = 0;
  std::int64_t mtime = item.mtime_ns;
  store::ReadOptions read{.if_version = item.version};
  read.on_info = [&](const store::ObjectInfo& info) -> Status {
    if (info.size != item.size) {
      return Fail(Errc::kConflict, from.NameOf(item.path) + " was replaced since it was listed");
    }
    if (options_.verify) expected = ExpectedOf(info);
    arrival.emplace(expected ? std::optional(expected->kind) : std::nullopt, 0,
                    [&](auto bytes, std::uint64_t offset) { return file->Write(bytes, offset); });
    mtime = TimeOf(info);
    return {};
  };
  const Status got = from.store->Read(
      key, read,
      [&](std::span<const std::byte> piece) -> Status {
        if (!bandwidth_.Take(piece.size(), ctx)) return Fail(Errc::kCancelled, "cancelled");
        arrived += piece.size();
        progress_.bytes += piece.size();
        return arrival->Take(piece);
      },
      ctx);
  const auto give_up = [&](Error error) {
    progress_.bytes -= arrived;
    file->Discard();
    return std::unexpected(std::move(error));
  };
  if (!got) return give_up(got.error());
  Result<std::string> digest = arrival ? arrival->Finish() : Result<std::string>(std::string());
  if (!digest) return give_up(digest.error());
  if (expected && *digest != expected->value) {
    return give_up(FailDigest(from.NameOf(item.path), digest::KindName(expected->kind)).error());
  }
  if (Status published = file->Publish(mtime); !published) return give_up(published.error());
  return Moved{
      .bytes = item.size,
      .verified_by = expected ? std::string(digest::KindName(expected->kind)) : std::string()};
}

Result<Moved> Mover::DownloadRanges(const Place& from, const Item& item, const std::string& folder,
                                    const std::string& name, const CallContext& ctx) {
  const std::string key = from.KeyOf(item.path);
  LEAT_ASSIGN_OR_RETURN(const store::ObjectInfo info,
                        from.store->Stat(key, item.version.version_id, ctx));
  if (!store::SameVersion(item.version, info.version) || info.size != item.size)
    return store::FailReplaced(from.NameOf(item.path), item.version, info.version);
  const std::optional<digest::Expected> expected =
      options_.verify ? ExpectedOf(info) : std::nullopt;
  // An object in parts is held to its parts' MD5s, side by side: that of the whole, where it is
  // known too, would have to be computed from the first byte to the last.
  const Item now{
      .path = item.path, .size = item.size, .version = info.version, .in_parts = info.in_parts};
  std::vector<store::PartDigest> parts;
  if (options_.verify) {
    LEAT_ASSIGN_OR_RETURN(parts, PartsOf(from, now, ctx));
  }
  // Parts of one size, but for the last, are brought as ranges; others are looked at afterwards.
  std::optional<std::uint64_t> part_size = PartSize(parts);
  if (part_size && *part_size > kLargestRange) part_size.reset();
  const std::uint64_t range = part_size.value_or(kRange);
  // What is noted as there, so that a slow line loses little.
  const std::uint64_t block = range % kMiB == 0 ? kMiB : range;
  LEAT_ASSIGN_OR_RETURN(const auto file,
                        PartialFile::Open(folder, name, item.size,
                                          fmt::format("{}\n{}\n{}\n{}", from.store->Identity(), key,
                                                      info.version.etag, info.version.version_id),
                                          block));
  const std::size_t count = (item.size + range - 1) / range;
  const std::size_t blocks_per_range = range / block;
  const auto offset_of = [&](std::size_t i) { return i * range; };
  const auto length_of = [&](std::size_t i) { return std::min(range, item.size - i * range); };
  std::vector<std::atomic<char>> there(count);  // ranges that are whole
  std::vector<std::string> md5s(part_size ? count : 0);
  std::atomic<std::uint64_t> resumed{0}, brought{0};
  std::mutex mutex;
  std::optional<Error> failure;
  std::optional<digest::Hasher> whole;  // of the ranges before `hashed`; used by who is hashing
  if (expected && !part_size) whole.emplace(expected->kind);
  std::size_t hashed = 0;
  bool hashing = false;
  const store::Version pin{.etag = info.version.etag,
                           .version_id = info.version.etag.empty() ? info.version.version_id : ""};

  const auto fetch = [&](std::size_t i) -> Status {
    const std::uint64_t end = offset_of(i) + length_of(i);
    std::size_t at = i * blocks_per_range;
    const std::size_t blocks_end = std::min(at + blocks_per_range, file->blocks());
    while (at < blocks_end && file->Has(at)) ++at;
    std::uint64_t position = std::min(at * block, end);
    const std::uint64_t before = position - offset_of(i);
    resumed += before;
    progress_.bytes += before;
    if (position == end) {
      if (!part_size) return {};
      digest::Hasher md5(digest::Kind::kMd5);
      LEAT_RETURN_IF_ERROR(HashRange(file->fd(), offset_of(i), before, md5, ctx));
      md5s[i] = md5.Finish();
      return {};
    }
    const auto write = [&](std::span<const std::byte> bytes, std::uint64_t offset) -> Status {
      LEAT_RETURN_IF_ERROR(file->Write(bytes, offset));
      const std::uint64_t written = offset + bytes.size();
      for (; at < blocks_end && written >= std::min((at + 1) * block, end); ++at)
        LEAT_RETURN_IF_ERROR(file->Done(at));
      return {};
    };
    Arrival arrival(part_size ? std::optional(digest::Kind::kMd5) : std::nullopt, position, write);
    LEAT_RETURN_IF_ERROR(arrival.HashBefore(file->fd(), offset_of(i), before, ctx));
    const Status got = from.store->Read(
        key, {.offset = position, .length = end - position, .if_version = pin},
        [&](std::span<const std::byte> piece) -> Status {
          if (piece.size() > end - position)
            return Fail(Errc::kCorrupt, "more bytes arrived than were asked for");
          if (!bandwidth_.Take(piece.size(), ctx)) return Fail(Errc::kCancelled, "cancelled");
          position += piece.size();
          brought += piece.size();
          progress_.bytes += piece.size();
          return arrival.Take(piece);
        },
        ctx);
    if (!got) {
      // (the first failure is the one to tell)
      static_cast<void>(arrival.Flush());
      return got;
    }
    if (position != end)
      return Fail(Errc::kCorrupt,
                  from.NameOf(item.path) + ": fewer bytes arrived than were asked for");
    LEAT_ASSIGN_OR_RETURN(std::string md5, arrival.Finish());
    if (part_size) md5s[i] = std::move(md5);
    return {};
  };
  // Whoever has brought a range hashes what is whole from the start, while the others go on.
  const auto hash_on = [&]() -> Status {
    std::unique_lock lock(mutex);
    while (whole && !hashing && hashed < count && !failure &&
           there[hashed].load(std::memory_order_acquire) != 0) {
      hashing = true;
      const std::size_t i = hashed;
      lock.unlock();
      const Status done = HashRange(file->fd(), offset_of(i), length_of(i), *whole, ctx);
      lock.lock();
      hashing = false;
      if (!done) return done;
      ++hashed;
    }
    return {};
  };
  const LargeFile one_more(*this);
  ParallelFor(
      count, [this] { return Streams(); },
      [&](std::size_t i) {
        Status done = ctx.cancelled() ? Status(Fail(Errc::kCancelled, "cancelled")) : fetch(i);
        if (done) there[i].store(1, std::memory_order_release);
        if (done) done = hash_on();
        if (done) return true;
        const std::lock_guard lock(mutex);
        if (!failure) failure = done.error();
        return false;
      });
  if (!failure) {
    if (const Status rest = hash_on(); !rest) failure = rest.error();
  }
  if (failure) {
    progress_.bytes -= brought + resumed;
    // It is not the object that it was, or gone: what has arrived is of no use.
    const Errc code = failure->code();
    if (code == Errc::kConflict || code == Errc::kNotFound) file->Discard();
    return std::unexpected(*failure);
  }
  const auto wrong = [&](std::string_view what) {
    file->Discard();
    progress_.bytes -= brought + resumed;
    return FailDigest(from.NameOf(item.path), what);
  };
  Moved moved{.bytes = item.size, .resumed = resumed, .verified_by = ""};
  if (options_.verify) {
    std::optional<bool> same;
    if (part_size) same = SameParts(parts, md5s, info.version.etag);
    if (same && !*same && parts[0].md5.empty()) {  // a guess, which proves nothing
      same.reset();
      parts.clear();
    }
    const bool told = !parts.empty() && !parts[0].md5.empty();
    // Where a digest of the whole is known, the file is not read again for parts that are a guess.
    if (!same && (told || !expected)) {
      LEAT_ASSIGN_OR_RETURN(
          same, HasParts(
                    [&](std::uint64_t offset, std::uint64_t length, digest::Hasher& to) {
                      return HashRange(file->fd(), offset, length, to, ctx);
                    },
                    parts, from, now, Streams(), ctx));
    }
    if (same && !*same) return wrong("MD5s of its parts");
    if (same) moved.verified_by = "MD5 of each part";
  }
  if (expected && moved.verified_by.empty()) {
    std::string digest;
    if (whole) {
      digest = whole->Finish();
    } else {
      LEAT_ASSIGN_OR_RETURN(digest, HashFile(file->fd(), item.size, expected->kind, ctx));
    }
    if (digest != expected->value) return wrong(digest::KindName(expected->kind));
    moved.verified_by = digest::KindName(expected->kind);
  }
  LEAT_RETURN_IF_ERROR(file->Publish(TimeOf(info)));
  return moved;
}

Result<Moved> Mover::CopyLocal(const Place& from, const Item& item, const std::string& folder,
                               const std::string& name, const CallContext& ctx) {
  const std::string path = from.PathOf(item.path);
  if (item.link) {
    const std::string source = path.substr(0, path.size() - kLinkSuffix.size());
    std::string target(item.size + 1, '\0');
    const ssize_t n = ::readlink(source.c_str(), target.data(), target.size());
    if (n < 0) return FailErrno(errno, source);
    target.resize(static_cast<std::size_t>(n));
    LEAT_RETURN_IF_ERROR(MakeLink(target, folder, name));
    return Moved{.bytes = item.size, .verified_by = ""};
  }
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd in, os::Open(path, O_RDONLY));
  LEAT_ASSIGN_OR_RETURN(const auto file,
                        PartialFile::Open(folder, name, item.size, "", std::max(item.size, 1UL)));
  const auto give_up = [&](std::unexpected<Error> error) {
    file->Discard();
    return error;
  };
  // The holes of a sparse file stay holes.
  std::vector<std::byte> buffer(kMiB);
  for (std::uint64_t at = 0; at < item.size;) {
    if (ctx.cancelled()) return give_up(Fail(Errc::kCancelled, "cancelled"));
    const off_t data = ::lseek(in.get(), static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    at = data < 0 ? at : static_cast<std::uint64_t>(data);
    if (at >= item.size) break;
    const auto piece =
        std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), item.size - at));
    if (!bandwidth_.Take(piece.size(), ctx)) return give_up(Fail(Errc::kCancelled, "cancelled"));
    Status done = os::PreadAll(in.get(), piece, at);
    if (done) done = file->Write(piece, at);
    if (!done) return give_up(Fail(std::move(done), path));
    at += piece.size();
  }
  struct stat st;
  if (::fstat(in.get(), &st) != 0) return give_up(FailErrno(errno, path));
  if (static_cast<std::uint64_t>(st.st_size) != item.size ||
      st.st_mtim.tv_sec * 1'000'000'000LL + st.st_mtim.tv_nsec != item.mtime_ns) {
    return give_up(Fail(Errc::kConflict, path + " was changed while it was copied"));
  }
  if (Status published = file->Publish(item.mtime_ns); !published)
    return give_up(std::unexpected(published.error()));
  progress_.bytes += item.size;
  return Moved{.bytes = item.size, .verified_by = ""};
}

}  // namespace leat::transfer
