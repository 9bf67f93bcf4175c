#include "transfer/upload.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "digest/digest.h"
#include "digest/md5_lanes.h"
#include "net/url.h"
#include "store/http_answer.h"
#include "transfer/mover.h"
#include "transfer/verify.h"

namespace leat::transfer {
namespace {

constexpr std::string_view kFormat = "leat upload 1";
constexpr std::uint64_t kLeastPart = 8 * kMiB;
constexpr std::uint64_t kLargestWhole = 32 * kMiB;
constexpr std::uint64_t kServersPart = 128 * kMiB;
/// Parts of another store are taken over up to this size.
constexpr std::uint64_t kLargestSourcePart = 32 * kMiB;

/// Lets threads that have the pieces of one object pass in the pieces' order.
class Turns {
 public:
  /// Waits until all before `i` are through; false when Stop was called.
  bool Await(std::size_t i) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped_ || next_ == i; });
    return !stopped_;
  }
  void Done() {
    const std::lock_guard lock(mutex_);
    ++next_;
    changed_.notify_all();
  }
  void Stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t next_ = 0;  // guarded by mutex_, as what follows
  bool stopped_ = false;
};

/// Servers need not heed the condition of a copied part, nor its range.
Status CheckCopied(const Place& from, const Item& item, const store::ObjectInfo& was,
                   store::ObjectStore& store, const std::string& key, const std::string& upload,
                   const std::vector<store::Part>& parts, const CallContext& ctx) {
  LEAT_ASSIGN_OR_RETURN(const store::ObjectInfo now,
                        from.store->Stat(from.KeyOf(item.path), item.version.version_id, ctx));
  if (!store::SameVersion(was.version, now.version) || was.modified != now.modified)
    return store::FailReplaced(from.NameOf(item.path), was.version, now.version);
  LEAT_ASSIGN_OR_RETURN(const std::vector<store::Part> there,
                        store.UploadedParts(key, upload, ctx));
  if (!std::ranges::equal(there, parts, {}, &store::Part::size, &store::Part::size))
    return Fail(Errc::kUnsupported, from.NameOf(item.path) + ": the server copies no parts");
  return {};
}

/// Where a file's bytes come from; reads any range of them, from any thread.
class SourceFile {
 public:
  static Result<std::unique_ptr<SourceFile>> Open(const Place& from, const Item& item) {
    std::unique_ptr<SourceFile> source(new SourceFile(from, item));
    if (from.local() && !item.link) {
      LEAT_ASSIGN_OR_RETURN(source->fd_, os::Open(from.PathOf(item.path), O_RDONLY));
      if (Status same = source->CheckUnchanged(); !same)
        return std::unexpected(std::move(same).error());
    }
    return source;
  }

  Status Read(std::uint64_t offset, std::span<std::byte> out, const CallContext& ctx,
              const std::function<Status(const store::ObjectInfo&)>& on_info = {}) {
    if (item_.link) return ReadLink(out);
    if (!from_.local()) {
      LEAT_ASSIGN_OR_RETURN(
          const std::size_t got,
          store::ReadInto(*from_.store, from_.KeyOf(item_.path), out,
                          {.offset = offset, .if_version = item_.version, .on_info = on_info},
                          ctx));
      if (got != out.size())
        return Fail(Errc::kConflict, from_.NameOf(item_.path) + " is shorter than it was listed");
      return {};
    }
    const Status read = os::PreadAll(fd_.get(), out, offset);
    LEAT_RETURN_IF_ERROR(CheckUnchanged());
    return read ? Status() : Fail(Status(read), from_.PathOf(item_.path));
  }

  /// A file is what it was when it was listed; of an object each read says so itself.
  Status CheckUnchanged() const {
    if (!fd_) return {};
    struct stat st;
    if (::fstat(fd_.get(), &st) != 0) return FailErrno(errno, from_.PathOf(item_.path));
    if (static_cast<std::uint64_t>(st.st_size) == item_.size &&
        st.st_mtim.tv_sec * 1'000'000'000LL + st.st_mtim.tv_nsec == item_.mtime_ns) {
      return {};
    }
    return Fail(Errc::kConflict,
                from_.PathOf(item_.path) + " was changed while it was copied; it is not stored");
  }

  /// What tells its bytes apart from others.
  std::string Identity() const {
    if (from_.local())
      return fmt::format("{} {} {}", from_.PathOf(item_.path), item_.size, item_.mtime_ns);
    return fmt::format("{} {} {} {}", from_.store->Identity(), from_.KeyOf(item_.path),
                       item_.version.etag, item_.version.version_id);
  }

 private:
  SourceFile(const Place& from, const Item& item) : from_(from), item_(item) {}

  Status ReadLink(std::span<std::byte> out) const {
    const std::string path = from_.PathOf(item_.path);
    const std::string link = path.substr(0, path.size() - kLinkSuffix.size());
    const ssize_t n = ::readlink(link.c_str(), reinterpret_cast<char*>(out.data()), out.size());
    if (n < 0) return FailErrno(errno, link);
    if (static_cast<std::size_t>(n) != out.size())
      return Fail(Errc::kConflict, link + " was changed while it was copied");
    return {};
  }

  const Place& from_;
  const Item& item_;
  os::UniqueFd fd_;
};

store::Metadata MetadataOf(const Item& item, const store::ObjectInfo* info) {
  store::Metadata metadata;
  if (info != nullptr) metadata = info->metadata;
  metadata.erase("md5chksum");
  if (!store::MtimeOf(metadata) && item.mtime_ns != 0) store::SetMtime(metadata, item.mtime_ns);
  return metadata;
}

std::string NotePath(const std::string& dir, std::string_view store, std::string_view key) {
  const std::string name = fmt::format("{}\n{}", store, key);
  return fmt::format("{}/{}", dir, ToHex(digest::HashSha256(AsBytes(name))).substr(0, 32));
}

}  // namespace

// ---------------------------------------------------------------- notes

std::string UploadNote::Encode() const {
  return fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n", kFormat, net::PercentEncode(store),
                     net::PercentEncode(key), net::PercentEncode(upload), part_size,
                     net::PercentEncode(source));
}

std::optional<UploadNote> UploadNote::Decode(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const auto end = text.find('\n');
    if (end == text.npos) return std::nullopt;
    lines.push_back(text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  if (lines.size() != 6 || lines[0] != kFormat) return std::nullopt;
  const auto part_size = store::ParseDecimal(lines[4]);
  UploadNote note{.store = net::PercentDecode(lines[1]),
                  .key = net::PercentDecode(lines[2]),
                  .upload = net::PercentDecode(lines[3]),
                  .part_size = part_size.value_or(0),
                  .source = net::PercentDecode(lines[5])};
  if (note.part_size == 0 || note.key.empty() || note.upload.empty()) return std::nullopt;
  return note;
}

UploadNotes UploadNotes::Open(const std::string& dir, std::string_view store,
                              std::string_view key) {
  UploadNotes notes;
  if (dir.empty() || !os::MakeDirs(dir, 0700)) return notes;
  const std::string path = NotePath(dir, store, key);
  auto lock = os::OpenLocked(path + ".lock", O_RDWR | O_CREAT);
  if (!lock) return notes;
  notes.path_ = path;
  notes.lock_ = std::move(*lock);
  return notes;
}

std::optional<UploadNote> UploadNotes::Read() const {
  if (path_.empty()) return std::nullopt;
  const auto text = os::ReadFile(path_, kMiB);
  return text ? UploadNote::Decode(*text) : std::nullopt;
}

Status UploadNotes::Write(const UploadNote& note) {
  if (path_.empty()) return {};
  // At once and without a sync: a process that is killed before it is noted leaves an upload that
  // nobody knows of. A torn note is none.
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd fd, os::Open(path_, O_WRONLY | O_CREAT | O_TRUNC));
  const std::string text = note.Encode();
  return os::PwriteAll(fd.get(), AsBytes(text), 0);
}

void UploadNotes::Remove() {
  if (path_.empty()) return;
  ::unlink(path_.c_str());
  ::unlink((path_ + ".lock").c_str());
  path_.clear();
  lock_.Reset();
}

void AbortForgotten(const std::string& dir, store::ObjectStore& store, std::string_view prefix,
                    std::int64_t before, const CallContext& ctx) {
  const auto names =
      dir.empty() ? Result<std::vector<std::string>>(std::vector<std::string>()) : os::ListDir(dir);
  if (!names) return;
  for (const std::string& name : *names) {
    if (name.ends_with(".lock")) continue;
    struct stat st;
    const std::string path = dir + "/" + name;
    if (::stat(path.c_str(), &st) != 0 || st.st_mtim.tv_sec >= before) continue;
    const auto text = os::ReadFile(path, kMiB);
    const auto note = text ? UploadNote::Decode(*text) : std::nullopt;
    if (!note || note->store != store.Identity() || !note->key.starts_with(prefix)) continue;
    UploadNotes held = UploadNotes::Open(dir, note->store, note->key);
    if (!held.Read()) continue;  // somebody is at it, or has just been
    if (store.AbortUpload(note->key, note->upload, ctx)) held.Remove();
  }
}

// ---------------------------------------------------------------- to a store

Buffers::Lease::Lease(Buffers& of, std::size_t size) : of_(of), size_(size) {
  {
    const std::lock_guard lock(of_.mutex_);
    if (of_.size_ != size) of_.spare_.clear();
    of_.size_ = size;
    if (!of_.spare_.empty()) {
      bytes_ = std::move(of_.spare_.back());
      of_.spare_.pop_back();
    }
  }
  if (bytes_ == nullptr) bytes_ = std::make_unique_for_overwrite<std::byte[]>(size);
}

Buffers::Lease::~Lease() {
  const std::lock_guard lock(of_.mutex_);
  if (of_.size_ == size_) of_.spare_.push_back(std::move(bytes_));
}

Result<Moved> Mover::Upload(const Place& from, const Item& item, const Place& to,
                            const CallContext& ctx) {
  const store::UploadLimits limits = to.store->upload_limits();
  // (what goes whole is in memory whole)
  const bool whole =
      limits.max_parts == 0 || item.size < std::min({cutoff_, kLargestWhole, limits.max_put});
  if (whole && item.size > limits.max_put)
    return Fail(Errc::kInvalid, fmt::format("{} is larger than the store takes ({})",
                                            from.NameOf(item.path), FormatBytes(limits.max_put)));
  return whole ? UploadWhole(from, item, to, ctx)
               : UploadParts(from, item, to, Bytes::kComeHere, ctx);
}

Result<Moved> Mover::UploadWhole(const Place& from, const Item& item, const Place& to,
                                 const CallContext& ctx) {
  LEAT_ASSIGN_OR_RETURN(const auto source, SourceFile::Open(from, item));
  if (!options_.budget->Take(item.size, ctx)) return Fail(Errc::kCancelled, "cancelled");
  const MemoryHold hold(*options_.budget, item.size);
  const auto buffer = std::make_unique_for_overwrite<std::byte[]>(item.size);
  const std::span<std::byte> bytes(buffer.get(), item.size);
  std::optional<store::ObjectInfo> info;
  LEAT_RETURN_IF_ERROR(source->Read(0, bytes, ctx, [&](const store::ObjectInfo& told) -> Status {
    info = told;
    return {};
  }));
  // What left is confirmed; what came from a store is held to what that says of it, too.
  Moved moved{.bytes = item.size, .verified_by = from.local() ? "the store's answer" : ""};
  if (options_.verify && info) {
    if (const auto expected = ExpectedOf(*info)) {
      digest::Hasher hasher(expected->kind);
      hasher.Update(bytes);
      moved.verified_by = digest::KindName(expected->kind);
      if (hasher.Finish() != expected->value)
        return FailDigest(from.NameOf(item.path), moved.verified_by);
    } else if (item.in_parts) {
      LEAT_ASSIGN_OR_RETURN(const auto parts, PartsOf(from, item, ctx));
      const auto hash = [&](std::uint64_t offset, std::uint64_t length, digest::Hasher& hasher) {
        hasher.Update(bytes.subspan(offset, length));
        return Status();
      };
      LEAT_ASSIGN_OR_RETURN(const auto same, HasParts(hash, parts, from, item, 1, ctx));
      if (same && !*same) return FailDigest(from.NameOf(item.path), "MD5s of its parts");
      if (same) moved.verified_by = "MD5 of each part";
    }
  }
  if (!bandwidth_.Take(item.size, ctx)) return Fail(Errc::kCancelled, "cancelled");
  const store::PutOptions put{.metadata = MetadataOf(item, info ? &*info : nullptr)};
  const std::string key = to.KeyOf(to.NameFor(item));
  auto version = to.store->Put(key, bytes, put, ctx);
  if (!version && version.error().code() == Errc::kNotFound) {
    LEAT_RETURN_IF_ERROR(MakeBucketOnce(to, ctx));
    version = to.store->Put(key, bytes, put, ctx);
  }
  if (!version) return std::unexpected(std::move(version).error());
  progress_.bytes += item.size;
  moved.version = *std::move(version);
  return moved;
}

Result<Moved> Mover::UploadParts(const Place& from, const Item& item, const Place& to,
                                 const Bytes their_bytes, const CallContext& ctx) {
  const bool by_server = their_bytes == Bytes::kStayThere;
  LEAT_ASSIGN_OR_RETURN(const auto source, SourceFile::Open(from, item));
  store::ObjectStore& store = *to.store;
  const std::string key = to.KeyOf(to.NameFor(item));
  const store::UploadLimits limits = store.upload_limits();
  const std::uint64_t least = (item.size + limits.max_parts - 1) / limits.max_parts;
  std::uint64_t part_size =
      std::max({by_server ? std::min(kServersPart, limits.max_put) : kLeastPart, limits.min_part,
                (least + kMiB - 1) / kMiB * kMiB});
  std::optional<store::ObjectInfo> info;
  // What came from a store is held to what that says of it: to the digest of the whole, in order,
  // or to its parts, which are those of the new object then.
  std::optional<digest::Expected> expected;
  std::vector<store::PartDigest> source_parts;
  if (!from.local()) {
    if (item.version.empty()) {
      return Fail(Errc::kUnsupported,
                  from.NameOf(item.path) +
                      ": the server names no version, so its parts may be of two; copy it to a "
                      "folder first");
    }
    LEAT_ASSIGN_OR_RETURN(info,
                          from.store->Stat(from.KeyOf(item.path), item.version.version_id, ctx));
    if (!store::SameVersion(item.version, info->version))
      return store::FailReplaced(from.NameOf(item.path), item.version, info->version);
  }
  if (options_.verify && info && !by_server) {
    Item now = item;
    now.version = info->version;
    now.in_parts = info->in_parts;
    LEAT_ASSIGN_OR_RETURN(source_parts, PartsOf(from, now, ctx));
    expected = ExpectedOf(*info);
    const std::optional<std::uint64_t> theirs = PartSize(source_parts);
    const bool guess = theirs && source_parts[0].md5.empty();
    if (theirs && !(guess && expected) && *theirs >= limits.min_part &&
        *theirs <= kLargestSourcePart && source_parts.size() <= limits.max_parts) {
      part_size = *theirs;
      expected.reset();
    } else {
      source_parts.clear();
    }
  }
  const std::size_t count = (item.size + part_size - 1) / part_size;
  const store::PutOptions put{.metadata = MetadataOf(item, info ? &*info : nullptr)};

  std::string source_name = source->Identity();
  // What the server copies is not looked at here: an object that was replaced and put back is
  // another one.
  if (by_server && info->modified)
    source_name += fmt::format(" {}", info->modified->time_since_epoch().count());
  UploadNotes notes = UploadNotes::Open(options_.state_dir, store.Identity(), key);
  std::string upload;
  std::vector<store::Part> there;  // from an earlier attempt
  if (const auto note = notes.Read()) {
    if (note->store == store.Identity() && note->key == key && note->part_size == part_size &&
        note->source == source_name) {
      auto parts = store.UploadedParts(key, note->upload, ctx);
      if (parts) {
        there = *std::move(parts);
        upload = note->upload;
        LEAT_RETURN_IF_ERROR(notes.Write(*note));  // it is of now
      } else if (parts.error().code() != Errc::kNotFound) {
        return std::unexpected(std::move(parts).error());
      }
    } else {
      LEAT_RETURN_IF_ERROR(store.AbortUpload(note->key, note->upload, ctx));
    }
  }
  if (upload.empty()) {
    auto begun = store.BeginUpload(key, put, ctx);
    if (!begun && begun.error().code() == Errc::kNotFound) {
      const Status made = MakeBucketOnce(to, ctx);
      begun = made ? store.BeginUpload(key, put, ctx) : std::unexpected(made.error());
    }
    if (!begun) {
      notes.Remove();
      return std::unexpected(std::move(begun).error());
    }
    upload = *std::move(begun);
    const Status noted =
        notes.Write({std::string(store.Identity()), key, upload, part_size, source_name});
    if (!noted) {
      (void)store.AbortUpload(key, upload, ctx);
      return std::unexpected(noted.error());
    }
  }

  std::vector<store::Part> parts(count);
  std::atomic<std::uint64_t> resumed{0}, brought{0};
  std::mutex mutex;
  std::optional<Error> failure;
  std::optional<digest::Hasher> whole;
  if (expected) whole.emplace(expected->kind);
  std::vector<std::string> md5s(source_parts.size());
  // Memory goes to the parts in their order: one that has none would keep all later ones waiting
  // for their turn to be hashed.
  Turns to_take, to_hash;
  const auto part_there = [&](std::size_t i, std::uint64_t length) {
    const auto found = std::ranges::find(there, i + 1, &store::Part::number);
    return found != there.end() && found->size == length ? &*found : nullptr;
  };
  const auto copy = [&](std::size_t i) -> Status {
    const std::uint64_t offset = i * part_size, length = std::min(part_size, item.size - offset);
    if (const store::Part* found = part_there(i, length)) {
      parts[i] = *found;
      resumed += length;
    } else {
      LEAT_ASSIGN_OR_RETURN(
          parts[i], store.CopyPart(from.bucket(), from.KeyOf(item.path), info->version, offset,
                                   length, key, upload, i + 1, ctx));
      brought += length;
    }
    progress_.bytes += length;
    return {};
  };
  const auto bring = [&](std::size_t i) -> Status {
    if (by_server) return copy(i);
    const std::uint64_t offset = i * part_size, length = std::min(part_size, item.size - offset);
    if (whole && !to_take.Await(i)) return Fail(Errc::kCancelled, "cancelled");
    if (!options_.budget->Take(length, ctx)) return Fail(Errc::kCancelled, "cancelled");
    if (whole) to_take.Done();
    const MemoryHold hold(*options_.budget, length);
    const Buffers::Lease buffer(buffers_, part_size);
    const std::span<std::byte> bytes(buffer.get(), length);
    LEAT_RETURN_IF_ERROR(source->Read(offset, bytes, ctx));
    if (whole) {
      if (!to_hash.Await(i)) return Fail(Errc::kCancelled, "cancelled");
      whole->Update(bytes);
      to_hash.Done();
    }
    const store::Part* const found = part_there(i, length);
    std::string md5;
    if ((!md5s.empty() || found != nullptr) && digest::CanHash(digest::Kind::kMd5))
      md5 = digest::Md5(bytes);
    const bool is_there = found != nullptr && !md5.empty() && ToHex(AsBytes(md5)) == found->etag;
    if (!md5s.empty()) md5s[i] = std::move(md5);
    if (is_there) {
      parts[i] = *found;
      resumed += length;
      progress_.bytes += length;
      return {};
    }
    if (!bandwidth_.Take(length, ctx)) return Fail(Errc::kCancelled, "cancelled");
    LEAT_ASSIGN_OR_RETURN(parts[i], store.PutPart(key, upload, i + 1, bytes, ctx));
    brought += length;
    progress_.bytes += length;
    return {};
  };
  const LargeFile one_more(*this);
  ParallelFor(
      count, [this] { return Streams(); },
      [&](std::size_t i) {
        const Status done =
            ctx.cancelled() ? Status(Fail(Errc::kCancelled, "cancelled")) : bring(i);
        if (done) return true;
        {
          const std::lock_guard lock(mutex);
          if (!failure) failure = done.error();
        }
        to_take.Stop();
        to_hash.Stop();
        return false;
      });
  Moved moved{.bytes = item.size,
              .resumed = resumed,
              .verified_by = by_server      ? "the store's own copy"
                             : from.local() ? "the store's answer"
                                            : ""};
  if (!failure && by_server) {
    const Status copied = CheckCopied(from, item, *info, store, key, upload, parts, ctx);
    if (!copied) failure = copied.error();
  }
  if (!failure && whole) {
    moved.verified_by = digest::KindName(expected->kind);
    if (whole->Finish() != expected->value)
      failure = FailDigest(from.NameOf(item.path), moved.verified_by).error();
  }
  if (!failure && !md5s.empty()) {
    const bool same = SameParts(source_parts, md5s, info->version.etag);
    if (same) moved.verified_by = "MD5 of each part";
    // Where their sizes were a guess, a wrong one tells nothing.
    if (!same && !source_parts[0].md5.empty())
      failure = FailDigest(from.NameOf(item.path), "MD5s of its parts").error();
  }
  Result<store::Version> version = Fail(Errc::kInternal, "");
  if (!failure) {
    if (const Status same = source->CheckUnchanged(); !same) failure = same.error();
  }
  if (!failure) {
    version = store.CompleteUpload(key, upload, parts, put, ctx);
    if (!version) failure = version.error();
  }
  if (failure) {
    progress_.bytes -= brought + resumed;
    // What may go on later stays; what cannot is taken away.
    const Errc code = failure->code();
    if (code != Errc::kCancelled && code != Errc::kDeadline && code != Errc::kUnavailable &&
        store.AbortUpload(key, upload, ctx)) {
      notes.Remove();
    }
    return std::unexpected(*failure);
  }
  notes.Remove();
  moved.version = *std::move(version);
  return moved;
}

}  // namespace leat::transfer
