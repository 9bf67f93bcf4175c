#include "job/pull.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <system_error>
#include <unordered_set>
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

constexpr std::string_view kProc = "/proc/";

/// What is known of a folder that was pulled: home/pulls/HASH, with what lies in it behind.
struct PullNote {
  std::string dir;
  std::string identity;
  std::uint64_t inode = 0;
  std::string boot;
  std::string listing;

  static PullNote Read(const std::string& path) {
    PullNote out;
    const auto text = os::ReadFile(path, std::size_t{1} << 32);
    if (!text) return out;
    const std::size_t end = text->find('\n');
    if (end == std::string::npos) return out;
    const nlohmann::json head = ParseJson(std::string_view(*text).substr(0, end));
    out.dir = TextOf(head, "dir");
    out.identity = TextOf(head, "identity");
    out.boot = TextOf(head, "boot");
    const nlohmann::json& inode = Field(head, "inode");
    if (inode.is_number_unsigned()) out.inode = inode.get<std::uint64_t>();
    out.listing = text->substr(end + 1);
    return out;
  }
  Status Write(const std::string& path) const {
    const nlohmann::ordered_json head = {
        {"dir", dir}, {"identity", identity}, {"inode", inode}, {"boot", boot}};
    return os::WriteFileAtomic(
        path, head.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n" +
                  listing);
  }
};

/// What is noted while a folder is being made: where, and that what is there of it is of these
/// contents, and has not lost bytes with the power.
std::string MakingText(const std::string& made, const std::string& identity) {
  return fmt::format("{}\n{}\n{}", made, os::BootId(), identity);
}

/// A line a file, ended by NUL: "<size> <mtime> <path>"; a link has no size.
std::string LineOf(const struct stat& st, const std::string& path) {
  std::string line = fmt::format("{} {}.{:09} {}", S_ISREG(st.st_mode) ? st.st_size : 0,
                                 st.st_mtim.tv_sec, st.st_mtim.tv_nsec, path);
  line += '\0';
  return line;
}

/// Whether all files of the listing are there as they were made, and how much that is. What a user
/// has added does not matter.
bool Holds(const std::string& dir, std::string_view listing, Pulled& pulled) {
  pulled.files = pulled.bytes = 0;
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
    ++pulled.files;
    if (S_ISREG(st.st_mode)) pulled.bytes += static_cast<std::uint64_t>(st.st_size);
    listing.remove_prefix(end + 1);
  }
  return true;
}

/// A file below `dir` that the listing does not have: a user's own. Empty: there is none.
std::string FindOwn(const std::string& dir, std::string_view listing) {
  std::unordered_set<std::string_view> made;
  while (!listing.empty()) {
    std::string_view line = listing.substr(0, listing.find('\0'));
    listing.remove_prefix(std::min(line.size() + 1, listing.size()));
    for (int field = 0; field < 2; ++field)
      line.remove_prefix(std::min(line.find(' '), line.size() - 1) + 1);
    made.insert(line);
  }
  std::vector<std::string> open = {""};
  while (!open.empty()) {
    const std::string below = std::move(open.back());
    open.pop_back();
    const auto names = os::ListDir(below.empty() ? dir : dir + "/" + below);
    if (!names) return below;  // nobody can tell
    for (const std::string& name : *names) {
      std::string path = below.empty() ? name : below + "/" + name;
      struct stat st;
      if (::lstat((dir + "/" + path).c_str(), &st) != 0) continue;
      if (S_ISDIR(st.st_mode)) {
        open.push_back(std::move(path));
      } else if (!made.contains(path)) {
        return path;
      }
    }
  }
  return "";
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

/// The lines of all that lies in a tree.
Status ListTree(const std::string& root, const std::string& below, Pulled& pulled,
                std::string& listing) {
  LEAT_ASSIGN_OR_RETURN(const auto names, os::ListDir(below.empty() ? root : root + "/" + below));
  for (const std::string& name : names) {
    const std::string path = below.empty() ? name : below + "/" + name;
    struct stat st;
    if (::lstat((root + "/" + path).c_str(), &st) != 0) return FailErrno(errno, root + "/" + path);
    if (S_ISDIR(st.st_mode)) {
      LEAT_RETURN_IF_ERROR(ListTree(root, path, pulled, listing));
      continue;
    }
    ++pulled.files;
    if (S_ISREG(st.st_mode)) pulled.bytes += static_cast<std::uint64_t>(st.st_size);
    listing += LineOf(st, path);
  }
  return {};
}

/// The tree `from` again in `to`, but for what is there already. Never the same files by another
/// name: what a user does to them in place would be done to both.
Status CopyTree(const std::string& from, const std::string& to, const CallContext& ctx) {
  std::vector<std::string> folders = {""};
  std::vector<std::string> files;
  for (std::size_t i = 0; i < folders.size(); ++i) {
    const std::string below = folders[i];
    const std::string there = below.empty() ? to : to + "/" + below;
    if (::mkdir(there.c_str(), 0755) != 0 && errno != EEXIST)
      return FailErrno(errno, "making the folder " + there);
    LEAT_ASSIGN_OR_RETURN(const auto names, os::ListDir(below.empty() ? from : from + "/" + below));
    for (const std::string& name : names) {
      std::string path = below.empty() ? name : below + "/" + name;
      struct stat st;
      if (::lstat((from + "/" + path).c_str(), &st) != 0)
        return FailErrno(errno, from + "/" + path);
      (S_ISDIR(st.st_mode) ? folders : files).push_back(std::move(path));
    }
  }
  constexpr std::size_t kThreads = 4;
  std::mutex mutex;
  std::optional<Error> failure;
  ParallelFor(files.size(), kThreads, [&](std::size_t i) {
    const auto copy = [&]() -> Status {
      if (ctx.cancelled()) return Fail(Errc::kCancelled, "cancelled");
      const std::string source = from + "/" + files[i], target = to + "/" + files[i];
      struct stat st;
      if (::lstat(source.c_str(), &st) != 0) return FailErrno(errno, source);
      // (What a killed one left of it is not complete for sure.)
      if (::unlink(target.c_str()) != 0 && errno != ENOENT) return FailErrno(errno, target);
      if (!S_ISLNK(st.st_mode)) return CopyFile(source, target, st);
      char link[PATH_MAX];
      const ssize_t n = ::readlink(source.c_str(), link, sizeof(link) - 1);
      if (n < 0) return FailErrno(errno, source);
      link[n] = 0;
      if (::symlink(link, target.c_str()) != 0) return FailErrno(errno, target);
      const timespec times[2] = {{0, UTIME_OMIT}, st.st_mtim};
      ::utimensat(AT_FDCWD, target.c_str(), times, AT_SYMLINK_NOFOLLOW);
      return {};
    };
    const Status done = copy();
    if (done) return true;
    const std::lock_guard lock(mutex);
    if (!failure) failure = done.error();
    return false;
  });
  if (failure) return std::unexpected(*failure);
  return {};
}

/// Waits for the lock on a file of leat's; the file appears with it.
Result<os::UniqueFd> LockFor(const std::string& path, const std::string& waiting,
                             const CallContext& ctx) {
  LEAT_ASSIGN_OR_RETURN(os::UniqueFd lock, os::Open(path, O_RDWR | O_CREAT));
  for (bool told = false;; told = true) {
    const Status locked = os::Flock(lock.get(), true, false);
    if (locked) return lock;
    if (locked.error().code() != Errc::kConflict) return std::unexpected(locked.error());
    if (!told) Progress(waiting);
    if (ctx.cancelled()) return Fail(Errc::kCancelled, "cancelled");
    ::usleep(20'000);
  }
}

/// What is known of a folder that another pull has put the same contents into, and that still has
/// them; without a folder: nothing. The caller holds the contents' lock.
PullNote FindTwin(const std::string& latest, const std::string& identity) {
  const std::string note_path = os::ReadFile(latest, PATH_MAX).value_or("");
  PullNote note = PullNote::Read(note_path);
  struct stat st;
  Pulled unused;
  const bool same = note.identity == identity && note.boot == os::BootId() &&
                    ::lstat(note.dir.c_str(), &st) == 0 && st.st_ino == note.inode;
  if (!same || !Holds(note.dir, note.listing, unused)) note = {};
  return note;
}

/// `made` takes the place of `dir`, which is nothing, empty, or, where `ours`, what an earlier pull
/// has put there.
Status Exchange(const std::string& made, const std::string& dir, bool ours) {
  if (::rename(made.c_str(), dir.c_str()) == 0) return {};
  if (!ours || (errno != ENOTEMPTY && errno != EEXIST))
    return FailErrno(errno, "publishing " + dir);
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

/// Without "." and "..", the slash at the end, and links, as far as it is there: one folder, one
/// path. What is seen through another process's root is without them already.
Result<std::string> WithoutLinks(const std::string& path) {
  std::string out = path;
  if (!path.starts_with(kProc)) {
    std::error_code failed;
    out = std::filesystem::weakly_canonical(path, failed).string();
    if (failed || out.empty()) return Fail(Errc::kInvalid, path + ": " + failed.message());
  }
  while (out.size() > 1 && out.ends_with('/')) out.pop_back();
  return out;
}

/// What tells a folder from all others: its path, where that is the same for all who ask.
Result<std::string> NameOfFolder(const std::string& dir, const std::string& parent) {
  if (!dir.starts_with(kProc)) return dir;
  struct stat st;
  if (::stat(parent.c_str(), &st) != 0) return FailErrno(errno, parent);
  return fmt::format("{}:{}{}", st.st_dev, st.st_ino, dir.substr(dir.rfind('/')));
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
  LEAT_ASSIGN_OR_RETURN(const std::string dir, WithoutLinks(path));
  struct stat st;
  const std::string parent = dir.substr(0, std::max<std::size_t>(dir.rfind('/'), 1));
  if (dir == "/") return Fail(Errc::kInvalid, "a dataset cannot take the place of /");
  const bool exists = ::lstat(dir.c_str(), &st) == 0;
  if (exists && !S_ISDIR(st.st_mode))
    return Fail(Errc::kConflict, dir + " is there, and is no folder");
  if (struct statx mount; exists && ::statx(AT_FDCWD, dir.c_str(), 0, STATX_INO, &mount) == 0 &&
                          (mount.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0) {
    return Fail(Errc::kInvalid, dir + " is a mount point; choose a folder in it");
  }
  LEAT_RETURN_IF_ERROR(os::MakeDirs(parent, 0755));

  const std::string pulls = tools.home.dir + "/pulls";
  LEAT_RETURN_IF_ERROR(os::MakeDirs(pulls, 0700));
  LEAT_ASSIGN_OR_RETURN(const std::string called, NameOfFolder(dir, parent));
  const std::string note_path =
      pulls + "/" + ToHex(digest::HashSha256(AsBytes(called))).substr(0, 32);
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd lock,
                        LockFor(note_path + ".lock", "waiting for another pull into " + dir, ctx));
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

  // What a killed one was making, of which contents, and since which boot.
  const std::string making = os::ReadFile(note_path + ".lock", 3 * PATH_MAX).value_or("");
  std::string made = making.substr(0, making.find('\n'));
  if (!made.starts_with(parent)) made.clear();
  bool same = !made.empty() && making == MakingText(made, request.identity);
  PullNote note = PullNote::Read(note_path);
  const std::uint64_t inode_there = ::lstat(dir.c_str(), &st) == 0 ? st.st_ino : 0;
  if (const PullNote next = PullNote::Read(note_path + ".next");
      inode_there != 0 && next.inode == inode_there) {
    // It was killed behind the exchange: what it was making is what it has replaced.
    if (::rename((note_path + ".next").c_str(), note_path.c_str()) != 0)
      return FailErrno(errno, note_path);
    note = next;
    same = false;
  }
  if (!made.empty()) {
    LEAT_RETURN_IF_ERROR(os::RemoveTree(made + "-old"));
    if (!same) LEAT_RETURN_IF_ERROR(os::RemoveTree(made));
  }
  const bool ours = inode_there != 0 && note.inode == inode_there;
  if (ours && note.identity == request.identity && note.boot == os::BootId() &&
      Holds(dir, note.listing, pulled)) {
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

  pulled.files = pulled.bytes = 0;
  // What takes its place would take along what its user has put into it.
  if (ours) {
    if (const std::string own = FindOwn(dir, note.listing); !own.empty()) {
      return Fail(
          Errc::kConflict,
          fmt::format("{} is to be replaced, but holds {}, which leat has not put there; move "
                      "it away, or choose another folder",
                      dir, Printable(own)));
    }
  }

  // Of all who want these contents on this machine, one downloads them.
  const std::string latest =
      pulls + "/of-" + ToHex(digest::HashSha256(AsBytes(request.identity))).substr(0, 32);
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd alone,
                        LockFor(latest + ".lock", "waiting for another pull of " + url, ctx));

  // What there is of these contents already is gone on with.
  if (!same) {
    std::random_device random;
    made = fmt::format("{}{}.leat-tmp-{:08x}{:08x}", parent, parent == "/" ? "" : "/", random(),
                       random());
    if (::ftruncate(lock.get(), 0) != 0) return FailErrno(errno, note_path);
    LEAT_RETURN_IF_ERROR(os::PwriteAll(lock.get(), AsBytes(MakingText(made, request.identity)), 0));
  }
  os::Cleanup remove([&] {
    (void)os::RemoveTree(made);
    if (::ftruncate(lock.get(), 0) != 0) Debug("a note of a pull stays");
  });

  MemoryBudget budget(tools.home.memory_bytes);
  cache::CacheOptions cache_options;
  // (One that is not there yet has nothing, and is not made for a folder elsewhere.)
  if (os::Exists(tools.home.cache_dir)) cache_options.dir = tools.home.cache_dir;
  cache_options.limit_bytes = tools.home.cache_bytes;
  cache_options.budget = &budget;
  const auto cache = cache::Cache::Open(cache_options);
  // What a run has copied (mode=copy), too.
  transfer::TreeOptions copied;
  copied.content = resolved.content;
  copied.cache = cache.get();
  copied.fallback_dir = tools.home.dir + "/trees";
  copied.source = url;
  if (resolved.expand) dataset::ExpandInto(copied, budget);
  const PullNote twin = FindTwin(latest, request.identity);
  std::string listing;
  bool copy = false;
  if (!twin.dir.empty()) {
    // Its owner may have changed it meanwhile.
    copy = CopyTree(twin.dir, made, ctx) && ListTree(made, "", pulled, listing) &&
           listing == twin.listing;
    if (!copy) LEAT_RETURN_IF_ERROR(os::RemoveTree(made));
  }
  Status filled;
  if (!copy && transfer::IsPublished(copied)) {
    LEAT_ASSIGN_OR_RETURN(const transfer::Tree tree, transfer::PublishTree(copied, ctx));
    filled = CopyTree(tree.path, made, ctx);
  } else if (!copy) {
    LEAT_RETURN_IF_ERROR(os::MakeDirs(made, 0755));
    dataset::FillOptions fill;
    fill.content = resolved.content;
    fill.expand = resolved.expand;
    fill.source = url;
    fill.cache = cache.get();
    fill.budget = &budget;
    fill.room_name = "what is free in " + parent;
    filled = dataset::Fill(fill, made, ctx);
  }
  cache->Shutdown();
  if (!filled) {
    // What has come so far is of use for the next attempt.
    const Errc why = filled.error().code();
    if (why == Errc::kCancelled || why == Errc::kUnavailable) remove.Dismiss();
    Error error = remote->ExplainLock(filled.error(), ctx);
    // (What an archive should not have is nothing that the caller has asked for wrongly.)
    if (error.code() == Errc::kInvalid) error = Error(Errc::kCorrupt, error.message());
    return std::unexpected(std::move(error));
  }
  listing.clear();
  pulled.files = pulled.bytes = 0;
  LEAT_RETURN_IF_ERROR(ListTree(made, "", pulled, listing));
  if (::lstat(made.c_str(), &st) != 0) return FailErrno(errno, made);
  const PullNote next = {dir, request.identity, st.st_ino, os::BootId(), std::move(listing)};
  // Meanwhile somebody may have put something there.
  const bool there = ::lstat(dir.c_str(), &st) == 0;
  if (there && (ours ? st.st_ino != inode_there || !FindOwn(dir, note.listing).empty()
                     : !IsEmptyFolder(dir))) {
    return Fail(Errc::kConflict,
                fmt::format("{} has got files meanwhile that leat has not put there; choose "
                            "another folder, or empty it",
                            dir));
  }
  LEAT_RETURN_IF_ERROR(next.Write(note_path + ".next"));
  LEAT_RETURN_IF_ERROR(Exchange(made, dir, ours));
  if (::rename((note_path + ".next").c_str(), note_path.c_str()) != 0)
    return FailErrno(errno, note_path);
  // (Whoever reads it holds the lock, and what a power loss leaves of it names no folder.)
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd pointer, os::Open(latest, O_WRONLY | O_CREAT | O_TRUNC));
  LEAT_RETURN_IF_ERROR(os::PwriteAll(pointer.get(), AsBytes(note_path), 0));
  pulled.requests = counts.requests();
  return pulled;
}

}  // namespace leat::job
