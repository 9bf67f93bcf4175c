#include "job/pull.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/json_fields.h"
#include "base/log.h"
#include "base/memory_budget.h"
#include "base/thread_pool.h"
#include "cache/cache.h"
#include "dataset/fill.h"
#include "digest/digest.h"
#include "job/dataset.h"
#include "os/file.h"
#include "transfer/tree.h"

namespace leat::job {
namespace {

/// What is known of a folder that was pulled: home/pulls/HASH, with what lies in it behind.
struct PullNote {
  std::string identity;
  std::uint64_t inode = 0;
  std::uint64_t old_inode = 0;  ///< of what it was to take the place of
  std::string boot;
  std::string listing;

  static PullNote Read(const std::string& path) {
    PullNote out;
    const auto text = os::ReadFile(path, std::size_t{1} << 32);
    if (!text) return out;
    const std::size_t end = text->find('\n');
    if (end == std::string::npos) return out;
    const nlohmann::json head = ParseJson(std::string_view(*text).substr(0, end));
    out.identity = TextOf(head, "identity");
    out.boot = TextOf(head, "boot");
    for (const auto& [key, to] :
         {std::pair("inode", &out.inode), std::pair("was", &out.old_inode)}) {
      const nlohmann::json& inode = Field(head, key);
      if (inode.is_number_unsigned()) *to = inode.get<std::uint64_t>();
    }
    out.listing = text->substr(end + 1);
    return out;
  }
  Status Write(const std::string& path, const std::string& dir) const {
    const nlohmann::ordered_json head = {
        {"dir", dir}, {"identity", identity}, {"inode", inode}, {"was", old_inode}, {"boot", boot}};
    return os::WriteFileAtomic(
        path, head.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n" +
                  listing);
  }
};

std::string BootId() {
  auto text = os::ReadFile("/proc/sys/kernel/random/boot_id", 100);
  return text ? text->substr(0, 36) : "?";
}

/// A line a file, ended by NUL: "<size> <mtime> <path>"; a link's size is its own.
std::string LineOf(const struct stat& st, const std::string& path) {
  std::string line =
      fmt::format("{} {}.{:09} {}", st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec, path);
  line += '\0';
  return line;
}

/// Whether all files of the listing are there as they were made. What a user has added does not
/// matter.
bool Holds(const std::string& dir, std::string_view listing) {
  while (!listing.empty()) {
    const std::size_t end = listing.find('\0');
    if (end == listing.npos) return false;
    const std::string_view line = listing.substr(0, end + 1);
    const std::size_t first = line.find(' ');
    const std::size_t second = line.find(' ', first + 1);
    if (second == line.npos) return false;
    const std::string path(line.substr(second + 1, end - second - 1));
    struct stat st;
    if (::lstat((dir + "/" + path).c_str(), &st) != 0 || LineOf(st, path) != line) return false;
    listing.remove_prefix(end + 1);
  }
  return true;
}

Status CopyFile(const std::string& from, const std::string& to, const struct stat& st) {
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd in, os::Open(from, O_RDONLY | O_NOFOLLOW));
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd out, os::Open(to, O_WRONLY | O_CREAT | O_EXCL, 0600));
  if (::ioctl(out.get(), FICLONE, in.get()) != 0) {
    std::vector<std::byte> buffer(std::size_t{1} << 20);
    for (std::uint64_t at = 0; at < static_cast<std::uint64_t>(st.st_size);) {
      const ssize_t n = ::pread(in.get(), buffer.data(), buffer.size(), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FailErrno(errno, "reading " + from);
      if (n == 0) return Fail(Errc::kCorrupt, from + " ends early");
      const auto size = static_cast<std::size_t>(n);
      if (Status written = os::PwriteAll(out.get(), std::span(buffer).first(size), at); !written)
        return Fail(std::move(written), to);
      at += size;
    }
  }
  const timespec times[2] = {{0, UTIME_OMIT}, st.st_mtim};
  if (::futimens(out.get(), times) != 0 || ::fchmod(out.get(), st.st_mode & 0777) != 0)
    return FailErrno(errno, to);
  return {};
}

/// The tree's twin in `to`, which is made: files by another name of the same, where that can be.
class Twin {
 public:
  Twin(std::string from, std::string to) : from_(std::move(from)), to_(std::move(to)) {}

  Status Make(const CallContext& ctx) {
    constexpr std::size_t kThreads = 4;
    std::vector<std::string> folders;  // below both; those above come first
    LEAT_RETURN_IF_ERROR(MakeFolders("", folders));
    std::optional<Error> failure;
    ParallelFor(folders.size(), kThreads, [&](std::size_t i) {
      const Status done = MakeFiles(folders[i], ctx);
      if (done) return true;
      const std::lock_guard lock(mutex_);
      if (!failure) failure = done.error();
      return false;
    });
    if (failure) return std::unexpected(*failure);
    return {};
  }
  std::uint64_t files() const { return files_; }
  std::uint64_t bytes() const { return bytes_; }
  /// A line for each file.
  std::string& listing() { return listing_; }

 private:
  static std::string In(const std::string& root, const std::string& below) {
    return below.empty() ? root : root + "/" + below;
  }

  Status MakeFolders(const std::string& below, std::vector<std::string>& folders) {
    const std::string here = In(from_, below), there = In(to_, below);
    if (::mkdir(there.c_str(), 0755) != 0) return FailErrno(errno, "making the folder " + there);
    folders.push_back(below);
    std::unique_ptr<DIR, int (*)(DIR*)> entries(::opendir(here.c_str()), ::closedir);
    if (entries == nullptr) return FailErrno(errno, here);
    std::vector<std::string> inside;
    while (const dirent* e = ::readdir(entries.get())) {
      const std::string name = e->d_name;
      if (name == "." || name == "..") continue;
      struct stat st;
      if (e->d_type == DT_UNKNOWN &&
          ::fstatat(::dirfd(entries.get()), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return FailErrno(errno, here + "/" + name);
      if (e->d_type == DT_UNKNOWN ? S_ISDIR(st.st_mode) : e->d_type == DT_DIR)
        inside.push_back(below.empty() ? name : below + "/" + name);
    }
    entries.reset();  // a tree may be deeper than a process can have files open
    for (const std::string& folder : inside) LEAT_RETURN_IF_ERROR(MakeFolders(folder, folders));
    return {};
  }

  Status MakeFiles(const std::string& below, const CallContext& ctx) {
    LEAT_ASSIGN_OR_RETURN(const auto here,
                          os::Open(In(from_, below), O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    LEAT_ASSIGN_OR_RETURN(const auto there, os::Open(In(to_, below), O_PATH | O_DIRECTORY));
    LEAT_ASSIGN_OR_RETURN(const auto names, os::ListDir(In(from_, below)));
    std::string listing;
    std::uint64_t files = 0, bytes = 0;
    for (const std::string& name : names) {
      if (ctx.cancelled()) return Fail(Errc::kCancelled, "cancelled");
      const std::string path = below.empty() ? name : below + "/" + name;
      struct stat st;
      if (::fstatat(here.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0)
        return FailErrno(errno, In(from_, path));
      if (S_ISDIR(st.st_mode)) continue;
      if (S_ISLNK(st.st_mode)) {
        char link[PATH_MAX];
        const ssize_t n = ::readlinkat(here.get(), name.c_str(), link, sizeof(link) - 1);
        if (n < 0) return FailErrno(errno, In(from_, path));
        link[n] = 0;
        if (::symlinkat(link, there.get(), name.c_str()) != 0)
          return FailErrno(errno, In(to_, path));
        const timespec times[2] = {{0, UTIME_OMIT}, st.st_mtim};
        ::utimensat(there.get(), name.c_str(), times, AT_SYMLINK_NOFOLLOW);
      } else {
        const bool linked =
            linking_ && ::linkat(here.get(), name.c_str(), there.get(), name.c_str(), 0) == 0;
        // Another disk, a file system without such links, or too many of them.
        if (!linked && linking_ && errno != EMLINK) linking_ = false;
        if (!linked) LEAT_RETURN_IF_ERROR(CopyFile(In(from_, path), In(to_, path), st));
        bytes += static_cast<std::uint64_t>(st.st_size);
      }
      ++files;
      listing += LineOf(st, path);
    }
    const std::lock_guard lock(mutex_);
    listing_ += listing;
    files_ += files;
    bytes_ += bytes;
    return {};
  }

  const std::string from_, to_;
  std::atomic<bool> linking_{true};
  std::mutex mutex_;  // guards what follows
  std::string listing_;
  std::uint64_t files_ = 0, bytes_ = 0;
};

/// `made` takes the place of `dir`, which is nothing, empty, or what an earlier pull has put there.
Status Exchange(const std::string& made, const std::string& dir) {
  if (::rename(made.c_str(), dir.c_str()) == 0) return {};
  if (errno != ENOTEMPTY && errno != EEXIST) return FailErrno(errno, "publishing " + dir);
  if (::renameat2(AT_FDCWD, made.c_str(), AT_FDCWD, dir.c_str(), RENAME_EXCHANGE) != 0) {
    // (NFS cannot exchange: for a moment there is nothing.)
    const std::string old = made + "-old";
    if (::rename(dir.c_str(), old.c_str()) != 0) return FailErrno(errno, "putting aside " + dir);
    if (::rename(made.c_str(), dir.c_str()) != 0) {
      const int error = errno;
      ::rename(old.c_str(), dir.c_str());
      return FailErrno(error, "publishing " + dir);
    }
    return os::RemoveTree(old);
  }
  return os::RemoveTree(made);
}

bool IsEmptyFolder(const std::string& dir) {
  const auto names = os::ListDir(dir);
  return names && names->empty();
}

}  // namespace

Result<MountSpec> ParsePull(std::string_view text, const config::Environment& env) {
  // What a dataset's defaults are, without a place in the storage.
  LEAT_ASSIGN_OR_RETURN(MountSpec spec,
                        ParseSourceWithOptions(std::string(text) + ",volume=shared", env));
  LEAT_RETURN_IF_ERROR(CheckBucket(spec.source));
  return spec;
}

Result<Pulled> PullDataset(const MountSpec& spec, const std::string& path, Toolbox& tools,
                           const CallContext& ctx) {
  if (tools.home.dir.empty()) return Fail(Errc::kInvalid, "neither HOME nor LEAT_HOME is set");
  std::string dir = path;
  while (dir.size() > 1 && dir.ends_with('/')) dir.pop_back();
  struct stat st;
  char real[PATH_MAX];
  if (::realpath(dir.c_str(), real) != nullptr) dir = real;
  const std::string parent = dir.substr(0, std::max<std::size_t>(dir.rfind('/'), 1));
  if (dir == "/") return Fail(Errc::kInvalid, "a dataset cannot take the place of /");
  const bool exists = ::lstat(dir.c_str(), &st) == 0;
  if (exists && !S_ISDIR(st.st_mode))
    return Fail(Errc::kConflict, dir + " is there, and is no folder");
  LEAT_RETURN_IF_ERROR(os::MakeDirs(parent, 0755));

  const std::string pulls = tools.home.dir + "/pulls";
  LEAT_RETURN_IF_ERROR(os::MakeDirs(pulls, 0700));
  const std::string note_path = pulls + "/" + ToHex(digest::HashSha256(AsBytes(dir))).substr(0, 32);
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd lock, os::Open(note_path + ".lock", O_RDWR | O_CREAT));
  if (!os::Flock(lock.get(), true, false)) {
    Progress("waiting for another pull into " + dir);
    while (!os::Flock(lock.get(), true, false)) {
      if (ctx.cancelled()) return Fail(Errc::kCancelled, "cancelled");
      ::usleep(50'000);
    }
  }
  // What a killed one was making.
  const std::string left = os::ReadFile(note_path + ".lock", PATH_MAX).value_or("");
  if (left.starts_with(parent)) {
    LEAT_RETURN_IF_ERROR(os::RemoveTree(left));
    LEAT_RETURN_IF_ERROR(os::RemoveTree(left + "-old"));
  }

  store::RequestCounts counts;
  LEAT_ASSIGN_OR_RETURN(const auto remote, Remote::Open(spec, tools, &counts));
  const std::string url = spec.source.ForMessages();
  LEAT_ASSIGN_OR_RETURN(const Resolved resolved, ResolveDataset(*remote, ctx, [&](std::uint64_t n) {
                          Progress(fmt::format("listing {}: {} objects", url, FormatCount(n)));
                        }));
  for (const std::string& note : resolved.taken.notes) Note(note);
  const dataset::PlaceRequest request = RequestFor(spec, *remote, &resolved);
  Pulled pulled;
  pulled.dir = dir;
  pulled.etag = request.found_etag;
  pulled.version_id = resolved.taken.version_id;
  if (resolved.taken.is_folder) pulled.pin = resolved.taken.index->pin();

  PullNote note = PullNote::Read(note_path);
  const std::uint64_t inode_there = ::lstat(dir.c_str(), &st) == 0 ? st.st_ino : 0;
  // (One that was killed may have exchanged them, or not.)
  const bool ours =
      inode_there != 0 && (note.inode == inode_there || note.old_inode == inode_there);
  if (inode_there == note.inode && ours && note.identity == request.identity &&
      note.boot == BootId() && Holds(dir, note.listing)) {
    for (std::size_t at = 0; (at = note.listing.find('\0', at)) != std::string::npos; ++at)
      ++pulled.files;
    pulled.bytes = resolved.expand ? 0 : resolved.content->index->total_bytes();
    pulled.there_before = true;
    pulled.requests = counts.requests();
    return pulled;
  }
  if (exists && !ours && !IsEmptyFolder(dir)) {
    return Fail(
        Errc::kConflict,
        fmt::format("{} holds what leat has not put there; choose another folder, or empty it",
                    dir));
  }

  MemoryBudget budget(tools.home.memory_bytes);
  cache::CacheOptions cache_options;
  cache_options.dir = tools.home.cache_dir;
  cache_options.limit_bytes = tools.home.cache_bytes;
  cache_options.budget = &budget;
  const auto cache = cache::Cache::Open(cache_options);
  transfer::TreeOptions options;
  options.content = resolved.content;
  options.cache = cache.get();
  options.fallback_dir = tools.home.dir + "/trees";
  options.source = url;
  options.sync = false;  // the end, which would wait for it, is near
  if (resolved.expand) dataset::ExpandInto(options, budget);
  auto tree = transfer::PublishTree(options, ctx);
  if (!tree) return std::unexpected(remote->ExplainLock(std::move(tree).error(), ctx));

  std::random_device random;
  const std::string made = fmt::format("{}{}.leat-tmp-{:08x}{:08x}", parent,
                                       parent == "/" ? "" : "/", random(), random());
  if (::ftruncate(lock.get(), 0) != 0) return FailErrno(errno, note_path);
  LEAT_RETURN_IF_ERROR(os::PwriteAll(lock.get(), AsBytes(made), 0));
  const os::Cleanup remove([&] { (void)os::RemoveTree(made); });
  Twin twin(tree->path, made);
  LEAT_RETURN_IF_ERROR(twin.Make(ctx));
  pulled.files = twin.files();
  pulled.bytes = twin.bytes();
  if (::lstat(made.c_str(), &st) != 0) return FailErrno(errno, made);
  note = {request.identity, st.st_ino, ours ? inode_there : 0, BootId(), std::move(twin.listing())};
  LEAT_RETURN_IF_ERROR(note.Write(note_path, dir));
  LEAT_RETURN_IF_ERROR(Exchange(made, dir));
  if (::ftruncate(lock.get(), 0) != 0) return FailErrno(errno, note_path);
  cache->Shutdown();
  transfer::SyncBehind(*tree);
  pulled.requests = counts.requests();
  return pulled;
}

}  // namespace leat::job
