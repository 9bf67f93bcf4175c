#include "store/local/local_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"

namespace leat::store::local {
namespace {

constexpr std::size_t kPiece = 256 * kKiB;
constexpr std::size_t kPageSize = 1000;
/// A file that a Put is writing; never listed.
constexpr std::string_view kTemporary = ".leat-put-";

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

/// Opens below `dir`; a link that leads out of it is EXDEV.
Fd OpenBeneath(int dir, const std::string& path, int flags) {
  open_how how = {};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  long fd = 0;
  do {
    fd = ::syscall(SYS_openat2, dir, path.c_str(), &how, sizeof how);
  } while (fd < 0 && (errno == EAGAIN || errno == EINTR));
  return Fd(static_cast<int>(fd));
}

/// What makes a key no relative path; nullptr when it is one.
const char* WhyNoPath(std::string_view key) {
  if (key.empty()) return "a key must not be empty";
  if (key.find('\0') != key.npos) return "a file name cannot hold a NUL";
  for (std::size_t at = 0; at <= key.size();) {
    const std::size_t end = std::min(key.find('/', at), key.size());
    const std::string_view part = key.substr(at, end - at);
    if (part.empty()) return "a path cannot have an empty component";
    if (part == "." || part == "..") return "a path with . or .. is not a key";
    if (part.size() > 255) return "a file name cannot be longer than 255 bytes";
    if (part.starts_with(kTemporary)) return "that name is kept for files being written";
    at = end + 1;
  }
  return nullptr;
}

std::chrono::system_clock::time_point TimeOf(const timespec& t) {
  return std::chrono::system_clock::time_point(std::chrono::seconds(t.tv_sec) +
                                               std::chrono::nanoseconds(t.tv_nsec));
}

ObjectInfo InfoOf(std::string key, const struct stat& st) {
  const auto ns = [](const timespec& t) {
    return static_cast<unsigned long long>(t.tv_sec) * 1'000'000'000ULL +
           static_cast<unsigned long long>(t.tv_nsec);
  };
  char etag[80];
  std::snprintf(etag, sizeof etag, "%llx-%llx-%llx-%llx",
                static_cast<unsigned long long>(st.st_ino),
                static_cast<unsigned long long>(st.st_size), ns(st.st_mtim), ns(st.st_ctim));
  ObjectInfo info;
  info.key = std::move(key);
  info.size = static_cast<std::uint64_t>(st.st_size);
  info.modified = TimeOf(st.st_mtim);
  info.version.etag = etag;
  return info;
}

/// A file has its time and no other metadata.
ObjectInfo WithMtime(ObjectInfo info, const struct stat& st) {
  SetMtime(info.metadata, st.st_mtim.tv_sec * 1'000'000'000LL + st.st_mtim.tv_nsec);
  return info;
}

class LocalStore final : public ObjectStore {
 public:
  LocalStore(std::string root, Fd fd)
      : root_(std::move(root)),
        name_("file://" + (root_ == "/" ? "" : root_)),
        fd_(std::move(fd)) {}

  std::string_view Describe() const override { return name_; }
  std::string_view Identity() const override { return name_; }
  Capabilities capabilities() const override {
    return {.list = true, .ranges = true, .put = true, .put_if_absent = true, .metadata = true};
  }

  Result<ObjectInfo> Stat(std::string_view key, std::string_view version_id,
                          const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(Begin(key, version_id, ctx));
    struct stat st = {};
    LEAT_ASSIGN_OR_RETURN(const Fd file, OpenFile(key, O_PATH, st));
    return WithMtime(InfoOf(std::string(key), st), st);
  }

  Status Read(std::string_view key, const ReadOptions& options, const Sink& sink,
              const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(Begin(key, options.if_version.version_id, ctx));
    struct stat st = {};
    LEAT_ASSIGN_OR_RETURN(const Fd file, OpenFile(key, O_RDONLY | O_NONBLOCK, st));
    const ObjectInfo info = WithMtime(InfoOf(std::string(key), st), st);
    if (!SameVersion(options.if_version, info.version)) {
      return FailReplaced(UrlOf(key), options.if_version, info.version);
    }
    if (options.on_info) LEAT_RETURN_IF_ERROR(options.on_info(info));
    const std::uint64_t from = std::min(options.offset, info.size);
    std::uint64_t left = std::min(options.length, info.size - from);
    auto at = static_cast<off_t>(from);
    std::vector<std::byte> buffer(std::min<std::uint64_t>(left, kPiece));
    while (left > 0) {
      if (ctx.cancelled()) return Fail(Errc::kCancelled, UrlOf(key) + ": cancelled");
      const ssize_t n =
          ::pread(file.get(), buffer.data(), std::min<std::uint64_t>(left, buffer.size()), at);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FailErrno(errno, "reading " + UrlOf(key));
      if (n == 0) break;  // truncated: the check below says so
      LEAT_RETURN_IF_ERROR(sink(std::span(buffer).first(static_cast<std::size_t>(n))));
      at += n;
      left -= static_cast<std::uint64_t>(n);
    }
    if (::fstat(file.get(), &st) != 0) return FailErrno(errno, "reading " + UrlOf(key));
    const ObjectInfo after = InfoOf({}, st);
    // (a link count that changed moves the ctime too, but not the bytes)
    if (after.size != info.size || after.modified != info.modified) {
      return Fail(Errc::kConflict, UrlOf(key) + " was changed while it was read (" +
                                       NameOf(info.version) + " is now " + NameOf(after.version) +
                                       ")");
    }
    return {};
  }

  Result<ListPage> List(std::string_view prefix, const ListOptions& options,
                        const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(Begin(prefix, {}, ctx));
    Walk walk{.prefix = prefix,
              .start_after = options.start_after,
              .limit = options.max_keys == 0 ? kPageSize : std::min(options.max_keys, kPageSize),
              .ctx = ctx};
    Fd root(::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root) return FailErrno(errno, "listing " + name_);
    LEAT_RETURN_IF_ERROR(WalkFolder(std::move(root), "", walk));
    if (walk.page.truncated) walk.page.next_after = walk.page.objects.back().key;
    return std::move(walk.page);
  }

  Result<Version> Put(std::string_view key, std::span<const std::byte> body,
                      const PutOptions& options, const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(Begin(key, {}, ctx));
    if (const char* why = WhyNoPath(key)) return Fail(Errc::kInvalid, UrlOf(key) + ": " + why);
    const std::string doing = "writing " + UrlOf(key);
    LEAT_ASSIGN_OR_RETURN(const Fd dir, MakeParent(key));
    const std::string name(key.substr(key.rfind('/') + 1));
    const std::string temporary = std::string(kTemporary) + std::to_string(::getpid()) + "-" +
                                  std::to_string(next_temporary_.fetch_add(1));
    Fd file(::openat(dir.get(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (!file) return FailErrno(errno, doing);
    auto version = WriteAndPublish(file, dir, temporary, name, body, options);
    if (version) return version->info.version;
    ::unlinkat(dir.get(), temporary.c_str(), 0);
    if (version.error() == EEXIST && options.if_absent) {
      return Fail(Errc::kConflict, UrlOf(key) + " exists already");
    }
    if (version.error() == EISDIR || version.error() == ENOTEMPTY) {
      return Fail(Errc::kInvalid, UrlOf(key) + " is a folder");
    }
    return FailErrno(version.error(), doing);
  }

  Status Remove(std::string_view key, const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(Begin(key, {}, ctx));
    if (const char* why = WhyNoPath(key)) return Fail(Errc::kInvalid, UrlOf(key) + ": " + why);
    const std::size_t slash = key.rfind('/');
    const std::string parent(slash == key.npos ? "." : key.substr(0, slash));
    const Fd dir = OpenBeneath(fd_.get(), parent, O_PATH | O_DIRECTORY);
    if (!dir && (errno == ENOENT || errno == ENOTDIR)) return {};
    if (!dir) return FailErrno(errno, "removing " + UrlOf(key));
    const std::string name(slash == key.npos ? key : key.substr(slash + 1));
    // A folder is no object: nothing to remove.
    if (::unlinkat(dir.get(), name.c_str(), 0) == 0 || errno == ENOENT || errno == EISDIR)
      return {};
    return FailErrno(errno, "removing " + UrlOf(key));
  }

 private:
  struct Written {
    ObjectInfo info;
  };
  struct Walk {
    std::string_view prefix;
    std::string_view start_after;
    std::size_t limit;
    const CallContext& ctx;
    ListPage page = {};
  };

  Status Begin(std::string_view key, std::string_view version_id, const CallContext& ctx) const {
    if (ctx.cancelled()) return Fail(Errc::kCancelled, UrlOf(key) + ": cancelled");
    if (ctx.expired()) return Fail(Errc::kDeadline, UrlOf(key) + ": out of time");
    if (!version_id.empty()) {
      return Fail(Errc::kUnsupported, UrlOf(key) + ": a folder keeps no versions");
    }
    return {};
  }

  Result<Fd> OpenFile(std::string_view key, int flags, struct stat& st) const {
    if (const char* why = WhyNoPath(key)) return Fail(Errc::kInvalid, UrlOf(key) + ": " + why);
    Fd file = OpenBeneath(fd_.get(), std::string(key), flags);
    if (!file && (errno == ENOENT || errno == ENOTDIR)) {
      return Fail(Errc::kNotFound, UrlOf(key) + " does not exist");
    }
    if (!file && errno == EXDEV) {
      return Fail(Errc::kDenied, UrlOf(key) + " is a link out of " + name_);
    }
    if (!file || ::fstat(file.get(), &st) != 0) return FailErrno(errno, "opening " + UrlOf(key));
    if (S_ISDIR(st.st_mode)) return Fail(Errc::kNotFound, UrlOf(key) + " is a folder, not a file");
    if (!S_ISREG(st.st_mode)) return Fail(Errc::kNotFound, UrlOf(key) + " is not a regular file");
    return file;
  }

  /// Opens the folder that holds `key`, making what is missing of it.
  Result<Fd> MakeParent(std::string_view key) const {
    Fd dir = OpenBeneath(fd_.get(), ".", O_PATH | O_DIRECTORY);
    for (std::size_t at = 0, slash = 0; (slash = key.find('/', at)) != key.npos; at = slash + 1) {
      const std::string part(key.substr(at, slash - at));
      // From the root each time: links inside it may lead up, though not out.
      const std::string path(key.substr(0, slash));
      if (dir && ::mkdirat(dir.get(), part.c_str(), 0777) != 0 && errno != EEXIST) {
        return FailErrno(errno, "making the folder of " + UrlOf(key));
      }
      dir = OpenBeneath(fd_.get(), path, O_PATH | O_DIRECTORY);
      if (!dir && errno == ENOTDIR) {
        return Fail(Errc::kInvalid, UrlOf(key) + ": " + Printable(path) + " is a file");
      }
      if (!dir) return FailErrno(errno, "making the folder of " + UrlOf(key));
    }
    if (!dir) return FailErrno(errno, "opening " + name_);
    return dir;
  }

  static std::expected<Written, int> WriteAndPublish(const Fd& file, const Fd& dir,
                                                     const std::string& temporary,
                                                     const std::string& name,
                                                     std::span<const std::byte> body,
                                                     const PutOptions& options) {
    while (!body.empty()) {
      const ssize_t n = ::write(file.get(), body.data(), body.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return std::unexpected(errno);
      body = body.subspan(static_cast<std::size_t>(n));
    }
    if (const auto mtime = MtimeOf(options.metadata)) {
      const std::int64_t seconds = *mtime / 1'000'000'000 - (*mtime % 1'000'000'000 < 0 ? 1 : 0);
      const timespec times[2] = {{0, UTIME_OMIT}, {seconds, *mtime - seconds * 1'000'000'000}};
      if (::futimens(file.get(), times) != 0) return std::unexpected(errno);
    }
    if (::fsync(file.get()) != 0) return std::unexpected(errno);
    if (options.if_absent) {
      if (::linkat(dir.get(), temporary.c_str(), dir.get(), name.c_str(), 0) != 0) {
        return std::unexpected(errno);
      }
      ::unlinkat(dir.get(), temporary.c_str(), 0);
    } else if (::renameat(dir.get(), temporary.c_str(), dir.get(), name.c_str()) != 0) {
      return std::unexpected(errno);
    }
    // The name must survive a power cut as well.
    if (const Fd sync(::openat(dir.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)); sync) {
      ::fsync(sync.get());
    }
    struct stat st = {};
    if (::fstat(file.get(), &st) != 0) return std::unexpected(errno);
    return Written{InfoOf({}, st)};
  }

  /// Adds what lies below the folder `dir`, whose keys begin with `path` ("" or "a/b/"), until the
  /// page is full.
  Status WalkFolder(Fd dir, const std::string& path, Walk& walk) const {
    struct Entry {
      std::string
          name;  ///< a folder's ends in '/', which is also how it sorts among its siblings' keys
    };
    std::vector<Entry> entries;
    const int fd = dir.get();
    DIR* stream = ::fdopendir(dir.Release());
    if (stream == nullptr) return FailErrno(errno, "listing " + UrlOf(path));
    const std::unique_ptr<DIR, int (*)(DIR*)> closer(stream, ::closedir);
    errno = 0;
    while (const dirent* entry = ::readdir(stream)) {
      std::string name = entry->d_name;
      if (name == "." || name == ".." || name.starts_with(kTemporary)) continue;
      unsigned char type = entry->d_type;
      if (type == DT_UNKNOWN) {
        struct stat st = {};
        if (::fstatat(fd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
        type = S_ISDIR(st.st_mode)   ? DT_DIR
               : S_ISLNK(st.st_mode) ? DT_LNK
               : S_ISREG(st.st_mode) ? DT_REG
                                     : DT_FIFO;
      }
      if (type == DT_DIR) name += '/';
      if (type == DT_DIR || type == DT_REG || type == DT_LNK) {
        const std::string key = path + name;
        if (IsWanted(key, type == DT_DIR, walk)) entries.push_back({std::move(name)});
      }
      errno = 0;
    }
    if (errno != 0) return FailErrno(errno, "listing " + UrlOf(path));
    std::sort(entries.begin(), entries.end(),
              [](const Entry& a, const Entry& b) { return a.name < b.name; });
    for (const Entry& entry : entries) {
      if (walk.page.truncated) return {};
      if (walk.ctx.cancelled()) return Fail(Errc::kCancelled, "listing " + name_ + ": cancelled");
      std::string key = path + entry.name;
      if (entry.name.ends_with('/')) {
        Fd below(::openat(fd, entry.name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (!below && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)) continue;
        if (!below) return FailErrno(errno, "listing " + UrlOf(key));
        LEAT_RETURN_IF_ERROR(WalkFolder(std::move(below), key, walk));
        continue;
      }
      struct stat st = {};
      if (::fstatat(fd, entry.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT) continue;
        return FailErrno(errno, "listing " + UrlOf(key));
      }
      if (S_ISLNK(st.st_mode)) {
        const Fd target = OpenBeneath(fd_.get(), key, O_PATH);
        if (!target || ::fstat(target.get(), &st) != 0) continue;  // dangling, or out of the root
      }
      if (!S_ISREG(st.st_mode)) continue;
      if (walk.page.objects.size() == walk.limit) {
        walk.page.truncated = true;
        return {};
      }
      walk.page.objects.push_back(InfoOf(std::move(key), st));
    }
    return {};
  }

  /// Whether `key` (or for a folder, whose key ends in '/', anything below it) belongs to the page.
  static bool IsWanted(const std::string& key, bool folder, const Walk& walk) {
    if (!folder) return key.starts_with(walk.prefix) && key > walk.start_after;
    if (!key.starts_with(walk.prefix) && !walk.prefix.starts_with(key)) return false;
    return key > walk.start_after || walk.start_after.starts_with(key);
  }

  const std::string root_;
  const std::string name_;
  const Fd fd_;
  std::atomic<std::uint64_t> next_temporary_{0};
};

}  // namespace

Result<std::unique_ptr<ObjectStore>> MakeLocalStore(std::string root) {
  if (root.find('\0') != root.npos) return Fail(Errc::kInvalid, "a path cannot hold a NUL");
  Fd fd(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd && errno == ENOTDIR) {
    return Fail(Errc::kInvalid, "file://" + Printable(root) + " is a file, not a folder");
  }
  if (!fd) return FailErrno(errno, "opening file://" + Printable(root));
  const std::unique_ptr<char, decltype(&::free)> real(::realpath(root.c_str(), nullptr), ::free);
  if (real == nullptr) return FailErrno(errno, "opening file://" + Printable(root));
  return std::make_unique<LocalStore>(real.get(), std::move(fd));
}

}  // namespace leat::store::local
